/* A pipeline that was written against version 1.1 of the tables, which has `check`: it draws stripes. Kept as it is, so that hosts to come are
 * tried with a plugin of the past. */
#include "cluegate_plugin.h"

#include <stdlib.h>

static int32_t create(const cg_setup *setup, void **instance, cg_error *error) {
  (void)setup;
  *instance = malloc(1);
  return *instance == NULL ? cg_fail(error, CG_FAILED, "no memory") : CG_OK;
}

static void destroy(void *instance) { free(instance); }

static int32_t generate(void *instance, const cg_draw *draw, const cg_call *call, const cg_hooks *hooks,
                        cg_error *error) {
  (void)instance;
  uint32_t width = draw->width != 0 ? draw->width : 16, height = draw->height != 0 ? draw->height : 16;
  uint32_t total = draw->steps != 0 ? draw->steps : 2;
  uint8_t *pixels = malloc((size_t)3 * width * height);
  if (pixels == NULL) return cg_fail(error, CG_FAILED, "no memory");
  for (uint32_t y = 0; y < height; y++)
    for (uint32_t x = 0; x < width; x++)
      for (uint32_t c = 0; c < 3; c++)
        pixels[3 * (y * width + x) + c] = (x + draw->seed) % 4 < 2 ? 220 : (uint8_t)(40 * c);
  cg_picture picture = {pixels, (size_t)3 * width, width, height};
  int32_t code = CG_OK;
  for (uint32_t step = 1; step <= total && code == CG_OK; step++) {
    cg_step done = {sizeof done, step, total, NULL, NULL};
    if (hooks->wants_preview(hooks->context, step, total)) done.picture = &picture;
    if (cg_is_cancelled(call)) code = cg_fail(error, CG_CANCELLED, "called off");
    else if (hooks->on_step(hooks->context, &done) != CG_CONTINUE) code = CG_ABORTED;
  }
  if (code == CG_OK) code = hooks->finished(hooks->context, &picture);
  free(pixels);
  return code;
}

static int32_t check(void *instance, const cg_draw *draw, cg_error *error) {
  (void)instance;
  /* Longer structures are of later versions: what is behind the end is not read. */
  if (draw->size < sizeof *draw) return cg_fail(error, CG_CONTRACT, "expected a drawing of version 1.1");
  if (draw->sampler.len > 0) return cg_fail(error, CG_REQUEST, "it has no samplers");
  return CG_OK;
}

static const cg_pipeline PIPELINE = {sizeof(cg_pipeline), generate, check};

static const cg_plugin PLUGIN = {
    .size = sizeof(cg_plugin),
    .major = CG_MAJOR,
    .minor = CG_MINOR,
    .name = CG_TEXT("checked-stripes"),
    .version = CG_TEXT("1.1"),
    .about = CG_TEXT("Draws stripes."),
    .schema = CG_TEXT("{}"),
    .create = create,
    .destroy = destroy,
    .pipeline = &PIPELINE,
};

CG_EXPORT int32_t cluegate_plugin_1(const cg_host *host, const cg_plugin **plugin, cg_error *error) {
  if (host->major != CG_MAJOR) return cg_fail(error, CG_CONTRACT, "expected a host of major version 1");
  *plugin = &PLUGIN;
  return CG_OK;
}
