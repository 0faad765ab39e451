/* A plugin of cluegate: what it exports, what it is given and what it gives. Version 1.2.
 *
 * A plugin is a shared library that exports one function, cluegate_plugin_1. A test holds this header against the tables of
 * the crate cluegate-abi, field by field.
 *
 * Rules:
 *  - Texts are UTF-8 and not terminated. A pointer is borrowed for the length of the call that passes it, unless it says
 *    otherwise; whoever allocates, frees. What a plugin gives is copied before the function that takes it returns.
 *  - A structure that may grow begins with its size in bytes, as its maker knew it. Fields that lie beyond it are not there.
 *    Tables grow at their end only, and only in minor versions.
 *  - Neither exceptions nor panics may leave a function. Functions answer CG_OK, CG_ABORTED or an error code, with a
 *    sentence in cg_error that names what was expected, what came and what to do.
 *  - A library is never unloaded.
 */
#ifndef CLUEGATE_PLUGIN_H
#define CLUEGATE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CG_MAJOR 1
#define CG_MINOR 2

#if defined(_WIN32)
#define CG_EXPORT __declspec(dllexport)
#else
#define CG_EXPORT __attribute__((visibility("default")))
#endif

/* What functions answer. */
enum {
  CG_OK = 0,
  CG_ABORTED = 1,      /* generate alone: a hook said so */
  CG_FAILED = 10,      /* a model, a file, memory */
  CG_CONFIG = 11,      /* the configuration cannot be used */
  CG_REQUEST = 12,     /* what was asked for cannot be done: a size, a sampler */
  CG_CANCELLED = 13,   /* the call was called off */
  CG_TIMEOUT = 14,     /* given up because time ran out */
  CG_UNSUPPORTED = 15, /* the plugin does not do this */
  CG_PANIC = 16,       /* a panic was caught */
  CG_CONTRACT = 17     /* called against these rules */
};

/* What a hook answers. */
enum { CG_CONTINUE = 0, CG_ABORT = 1 };

/* Flags of a plugin. */
enum {
  /* One instance may be called from several threads at a time. Without it the host makes its calls one after the other,
   * from whichever thread. */
  CG_FLAG_CONCURRENT = 1,
  /* Since 1.2: its pipeline begins from pictures too (`source` of cg_draw). Without it the host gives it none. */
  CG_FLAG_SOURCE = 2
};

/* Levels of the log. */
enum { CG_LOG_ERROR = 1, CG_LOG_WARNING = 2, CG_LOG_INFORMATION = 3, CG_LOG_DETAIL = 4 };

/* UTF-8 text, not terminated. */
typedef struct cg_text {
  const uint8_t *data; /* may be NULL if len is 0 */
  size_t len;          /* bytes */
} cg_text;

/* A picture of 8-bit red, green and blue, row by row from the top. */
typedef struct cg_picture {
  const uint8_t *data; /* the first pixel's red */
  size_t stride;       /* bytes from one row to the next, 3 * width or more */
  uint32_t width;      /* pixels, 1 or more */
  uint32_t height;     /* pixels, 1 or more */
} cg_picture;

/* A box in pixels of a picture, (0, 0) its upper left corner. */
typedef struct cg_box {
  float left;
  float top;
  float right;
  float bottom;
} cg_box;

/* Where a plugin says what went wrong: the host's memory, which the plugin writes into. */
typedef struct cg_error {
  size_t size;
  uint8_t *message; /* room for UTF-8 text */
  size_t capacity;  /* bytes of room */
  size_t len;       /* bytes written */
} cg_error;

/* The host. Lives as long as the process. */
typedef struct cg_host {
  size_t size;
  uint32_t major;
  uint32_t minor;
  void *context;
  /* Writes a line to the host's log, from any thread. */
  void (*log)(void *context, cg_text plugin, uint32_t level, cg_text message);
} cg_host;

/* What an instance is made from. */
typedef struct cg_setup {
  size_t size;
  cg_text config; /* a JSON object */
  cg_text folder; /* what relative paths of it mean */
} cg_setup;

/* On what terms a function is called. */
typedef struct cg_call {
  size_t size;
  const uint32_t *cancelled; /* see cg_is_cancelled */
  uint64_t deadline_ms;      /* how long the host waits, from the call's beginning; who is slower counts as broken */
} cg_call;

/* What is to be drawn. */
typedef struct cg_draw {
  size_t size;
  cg_text prompt;
  cg_text negative_prompt; /* empty for nothing */
  cg_text sampler;         /* empty for the plugin's own choice */
  uint64_t seed;           /* the same seed gives the same picture */
  double guidance;         /* weight of the prompt; NaN for the plugin's own choice */
  uint32_t steps;          /* 0 for the plugin's own choice, as for the next two */
  uint32_t width;
  uint32_t height;
  uint32_t reserved;
  const cg_text *avoid; /* statements that made earlier attempts violate a rule */
  size_t avoid_len;
  /* Since 1.2. A picture to begin from, in place of noise alone, or NULL. Given to plugins with CG_FLAG_SOURCE only; to
   * `check` perhaps another one of a single pixel. */
  const cg_picture *source;
  const cg_picture *mask; /* since 1.2; of its size: white where to draw anew, black where it stays; NULL for everywhere */
  double strength;        /* since 1.2; how far the result may be from it, over 0, at most 1; NaN for the plugin's choice */
} cg_draw;

/* A latent picture with the linear map that shows what it will become. */
typedef struct cg_latent {
  const float *data; /* channel by channel, row by row */
  const float *rgb;  /* for red, green and blue each: a factor per channel, then a constant; the sums are levels, 0 to 1 */
  uint32_t channels; /* 1 to 64 */
  uint32_t width;
  uint32_t height;
  uint32_t reserved;
} cg_latent;

/* A finished step. */
typedef struct cg_step {
  size_t size;
  uint32_t step; /* finished steps, from 1 */
  uint32_t total;
  const cg_picture *picture; /* what the picture will become, if that was asked for; or NULL */
  const cg_latent *latent;   /* the same as a latent picture; or NULL */
} cg_step;

/* What a plugin that draws tells the host, from the thread that generate was called on. */
typedef struct cg_hooks {
  size_t size;
  void *context; /* passed back to each */
  /* Whether a preview is wanted after this step: not 0 if so. May be asked before the step is computed. */
  int32_t (*wants_preview)(void *context, uint32_t step, uint32_t total);
  /* After every step: CG_CONTINUE or CG_ABORT. */
  int32_t (*on_step)(void *context, const cg_step *step);
  /* Takes the finished picture, once: CG_OK, or what generate is to return. */
  int32_t (*finished)(void *context, const cg_picture *picture);
} cg_hooks;

/* A plugin that draws pictures. */
typedef struct cg_pipeline {
  size_t size;
  /* Draws one picture and gives it to hooks: CG_OK, CG_ABORTED once a hook said so, or an error. */
  int32_t (*generate)(void *instance, const cg_draw *draw, const cg_call *call, const cg_hooks *hooks, cg_error *error);
  /* Since 1.1, may be NULL. Refuses, with CG_REQUEST, what cannot be drawn, before anything is; the prompt is empty. */
  int32_t (*check)(void *instance, const cg_draw *draw, cg_error *error);
} cg_pipeline;

/* One thing that a judge found or looked for. */
typedef struct cg_label {
  size_t size;
  cg_text name;
  float score;        /* 0 to 1 */
  int32_t has_region; /* not 0 if region says where it is */
  cg_box region;
} cg_label;

/* What a judge tells the host of a picture, from the thread that it was called on. */
typedef struct cg_findings {
  size_t size;
  void *context; /* passed back to each */
  /* Takes one label: CG_OK, or what the judge is to return. */
  int32_t (*label)(void *context, const cg_label *label);
  /* Takes the opinion, once: not 0 if the picture is unsafe, and how sure that is, 0 to 1. */
  int32_t (*verdict)(void *context, int32_t flagged, float score);
} cg_findings;

/* A plugin that looks at pictures. At least one of its functions is there. */
typedef struct cg_judge {
  size_t size;
  /* May be NULL. Gives labels, with boxes if it finds boxes, and then an opinion. */
  int32_t (*classify)(void *instance, const cg_picture *picture, const cg_call *call, const cg_findings *findings,
                      cg_error *error);
  /* May be NULL. How much of an answer is Yes and how much is No, 0 to 1 each, to whether the statement holds of the
   * picture; NULL for the same question without one. */
  int32_t (*answer)(void *instance, const cg_picture *picture, cg_text statement, const cg_call *call, double *yes,
                    double *no, cg_error *error);
} cg_judge;

/* A picture in which something is to be hidden or replaced. */
typedef struct cg_edit {
  size_t size;
  const cg_picture *picture;
  const cg_box *regions; /* what is to be changed; nothing outside may be */
  size_t regions_len;
  cg_text prompt; /* what the picture was made from; empty if nobody knows */
  uint64_t seed;
} cg_edit;

/* A prompt that is to be written anew. */
typedef struct cg_rewriting {
  size_t size;
  cg_text prompt;
  const cg_text *avoid; /* statements that made earlier attempts violate a rule */
  size_t avoid_len;
  uint32_t attempt; /* from 1 */
  uint32_t reserved;
} cg_rewriting;

/* Takes a picture. */
typedef struct cg_picture_sink {
  size_t size;
  void *context;
  int32_t (*put)(void *context, const cg_picture *picture); /* once: CG_OK, or what the plugin is to return */
} cg_picture_sink;

/* Takes a text. */
typedef struct cg_text_sink {
  size_t size;
  void *context;
  int32_t (*put)(void *context, cg_text text); /* once: CG_OK, or what the plugin is to return */
} cg_text_sink;

/* A plugin that acts on a verdict. At least one of its functions is there. */
typedef struct cg_action {
  size_t size;
  /* May be NULL. Hides what the regions show; gives a picture of the same size. */
  int32_t (*redact)(void *instance, const cg_edit *edit, const cg_call *call, const cg_picture_sink *sink,
                    cg_error *error);
  /* May be NULL. Puts something else in the place of what the regions show; gives a picture of the same size. */
  int32_t (*inpaint)(void *instance, const cg_edit *edit, const cg_call *call, const cg_picture_sink *sink,
                     cg_error *error);
  /* May be NULL. Gives another prompt. */
  int32_t (*rewrite)(void *instance, const cg_rewriting *rewriting, const cg_call *call, const cg_text_sink *sink,
                     cg_error *error);
  /* May be NULL. Tells somebody of a decision: the entry of the decision log, a JSON object. */
  int32_t (*publish)(void *instance, cg_text decision, const cg_call *call, cg_error *error);
} cg_action;

/* A plugin. Lives as long as the process, and so does everything that it points to. */
typedef struct cg_plugin {
  size_t size;
  uint32_t major; /* CG_MAJOR */
  uint32_t minor; /* CG_MINOR */
  uint64_t flags; /* CG_FLAG_..., or 0 */
  cg_text name;   /* lower-case letters, digits and hyphens */
  cg_text version;
  cg_text about;  /* a sentence */
  cg_text schema; /* JSON Schema of the configuration */
  /* Makes an instance and points *instance to it. */
  int32_t (*create)(const cg_setup *setup, void **instance, cg_error *error);
  /* Frees an instance that create made; no other call of it is running. */
  void (*destroy)(void *instance);
  /* May be NULL. Gives whatever tells the plugin's models from others: instances of one library that give the same texts
   * answer alike. */
  int32_t (*fingerprint)(void *instance, const cg_text_sink *sink, cg_error *error);
  const cg_pipeline *pipeline; /* or NULL */
  const cg_judge *judge;       /* or NULL */
  const cg_action *action;     /* or NULL */
} cg_plugin;

/* The one function that a plugin exports: checks that it can work with host and points *plugin to its table. */
CG_EXPORT int32_t cluegate_plugin_1(const cg_host *host, const cg_plugin **plugin, cg_error *error);

#if defined(__GNUC__)
/* Whether nobody waits for the answer any more. Ask before each piece of work that takes long, and give up with
 * CG_CANCELLED. */
static inline int cg_is_cancelled(const cg_call *call) {
  return call->cancelled != NULL && __atomic_load_n(call->cancelled, __ATOMIC_ACQUIRE) != 0;
}
#endif

/* A text of a string literal. */
#define CG_TEXT(literal) { (const uint8_t *)(literal), sizeof(literal) - 1 }

/* Says what went wrong, as far as there is room for it, and gives back the code. */
static inline int32_t cg_fail(cg_error *error, int32_t code, const char *message) {
  size_t len = 0;
  if (error != NULL && error->message != NULL) {
    while (len < error->capacity && message[len] != 0) {
      error->message[len] = (uint8_t)message[len];
      len++;
    }
    error->len = len;
  }
  return code;
}

#ifdef __cplusplus
}
#endif

#endif
