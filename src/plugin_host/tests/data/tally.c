/* A plugin in C, as small as one can be that judges and acts: it tells how bright a picture is and where it is brightest,
 * answers "the picture is bright", and fills regions with grey.
 *
 * Compiled with -DWRONG=1 and so on it is wrong in one way each. */
#include "cluegate_plugin.h"

#include <stdlib.h>
#include <string.h>

#ifndef WRONG
#define WRONG 0
#endif

#if WRONG == 3
#define NAME "Not A Name"
#else
#define NAME "tally"
#endif

#if WRONG == 6
/* From a library that is not linked. */
extern int32_t not_there_at_all(void);
#endif
#if WRONG == 7
/* From one that will not be found. */
extern int32_t from_the_missing_one(void);
#endif

typedef struct tally {
  const cg_host *host;
  unsigned calls;
} tally;

static const cg_host *HOST;

#if WRONG == 9
static void *volatile HOLE;
#endif

static int32_t create(const cg_setup *setup, void **instance, cg_error *error) {
  if (setup->config.len == 0 || setup->config.data[0] != '{')
    return cg_fail(error, CG_CONFIG, "expected a JSON object as configuration");
  tally *made = calloc(1, sizeof *made);
  if (made == NULL) return cg_fail(error, CG_FAILED, "no memory");
  made->host = HOST;
  *instance = made;
  static const char line[] = "ready to count";
  cg_text name = CG_TEXT("tally"), message = {(const uint8_t *)line, sizeof line - 1};
  HOST->log(HOST->context, name, CG_LOG_DETAIL, message);
  return CG_OK;
}

static void destroy(void *instance) { free(instance); }

/* Mean level of all channels, 0 to 1, and the brightest pixel. */
static float brightness(const cg_picture *picture, uint32_t *at_x, uint32_t *at_y) {
  double sum = 0;
  unsigned most = 0;
  for (uint32_t y = 0; y < picture->height; y++) {
    const uint8_t *row = picture->data + y * picture->stride;
    for (uint32_t x = 0; x < picture->width; x++) {
      unsigned level = (unsigned)row[3 * x] + row[3 * x + 1] + row[3 * x + 2];
      sum += level;
      if (level > most) {
        most = level;
        *at_x = x;
        *at_y = y;
      }
    }
  }
  return (float)(sum / (765.0 * picture->width * picture->height));
}

static int32_t classify(void *instance, const cg_picture *picture, const cg_call *call, const cg_findings *findings,
                        cg_error *error) {
  tally *own = instance;
  own->calls++;
  if (cg_is_cancelled(call)) return cg_fail(error, CG_CANCELLED, "called off");
  uint32_t x = 0, y = 0;
  float bright = brightness(picture, &x, &y);
#if WRONG == 9
  /* Lost at every call. */
  HOLE = malloc(64);
#endif
#if WRONG == 10
  /* Read after it was freed. */
  volatile uint8_t *gone = malloc(64);
  free((void *)gone);
  own->calls += gone[8];
#endif
  cg_label label = {
      .size = sizeof label,
      .name = CG_TEXT("bright"),
      .score = bright,
      .has_region = 1,
      .region = {(float)x, (float)y, (float)x + 1, (float)y + 1},
  };
  int32_t taken = findings->label(findings->context, &label);
  if (taken != CG_OK) return taken;
  return findings->verdict(findings->context, bright > 0.9f, bright);
}

static int32_t answer(void *instance, const cg_picture *picture, cg_text statement, const cg_call *call, double *yes,
                      double *no, cg_error *error) {
  (void)instance;
  (void)call;
  static const char known[] = "the picture is bright";
  if (statement.len != sizeof known - 1 || memcmp(statement.data, known, statement.len) != 0)
    return cg_fail(error, CG_REQUEST, "expected the statement \"the picture is bright\"");
  uint32_t x, y;
  *yes = picture == NULL ? 0.5 : brightness(picture, &x, &y);
  *no = 1 - *yes;
  return CG_OK;
}

static int32_t redact(void *instance, const cg_edit *edit, const cg_call *call, const cg_picture_sink *sink,
                      cg_error *error) {
  (void)instance;
  (void)call;
  uint32_t width = edit->picture->width, height = edit->picture->height;
  uint8_t *pixels = malloc((size_t)3 * width * height);
  if (pixels == NULL) return cg_fail(error, CG_FAILED, "no memory");
  for (uint32_t y = 0; y < height; y++)
    for (uint32_t x = 0; x < width; x++) {
      const uint8_t *from = edit->picture->data + y * edit->picture->stride + 3 * x;
      int inside = 0;
      for (size_t i = 0; i < edit->regions_len; i++) {
        const cg_box *box = &edit->regions[i];
        float left = (float)x, top = (float)y;
        inside |= left + 1 > box->left && left < box->right && top + 1 > box->top && top < box->bottom;
      }
      for (int c = 0; c < 3; c++) pixels[3 * ((size_t)y * width + x) + c] = inside ? 128 : from[c];
    }
  cg_picture redacted = {pixels, (size_t)3 * width, width, height};
  int32_t code = sink->put(sink->context, &redacted);
  free(pixels);
  return code;
}

static int32_t fingerprint(void *instance, const cg_text_sink *sink, cg_error *error) {
  (void)instance;
  (void)error;
  cg_text text = CG_TEXT("counts");
  return sink->put(sink->context, text);
}

static const cg_judge JUDGE = {sizeof(cg_judge), classify, answer};
static const cg_action ACTION = {.size = sizeof(cg_action), .redact = redact};

static const cg_plugin PLUGIN = {
    .size = WRONG == 1 ? 24 : sizeof(cg_plugin),
    .major = WRONG == 2 ? 7 : CG_MAJOR,
    .minor = CG_MINOR,
    .name = CG_TEXT(NAME),
    .version = CG_TEXT("0.1.0"),
    .about = CG_TEXT("Tells how bright a picture is."),
    .schema = CG_TEXT("{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {\"note\": {}}}"),
    .create = create,
    .destroy = destroy,
    .fingerprint = fingerprint,
    .judge = WRONG == 4 ? NULL : &JUDGE,
    .action = WRONG == 4 ? NULL : &ACTION,
};

#if WRONG == 5
CG_EXPORT int32_t another_name(void);
int32_t another_name(void) { return PLUGIN.major + (HOST != NULL); }
#else
CG_EXPORT int32_t cluegate_plugin_1(const cg_host *host, const cg_plugin **plugin, cg_error *error) {
  if (host->major != CG_MAJOR) return cg_fail(error, CG_CONTRACT, "expected a host of major version 1");
#if WRONG == 6
  not_there_at_all();
#endif
#if WRONG == 7
  from_the_missing_one();
#endif
#if WRONG == 8
  return cg_fail(error, CG_FAILED, "it does not like this host");
#endif
  HOST = host;
  *plugin = &PLUGIN;
  return CG_OK;
}
#endif
