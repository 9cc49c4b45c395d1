/* One class in streaming form, from its arguments to its results. */
#ifndef DDOQ_CPU_STREAM_CLASS_H
#define DDOQ_CPU_STREAM_CLASS_H

#include "ddoq.h"

/* Quantises class c of args, whose form is streaming, with all threads of the run; its uniform numbers begin at
 * uniforms. */
enum ddoq_status ddoq_stream_class(const struct ddoq_run *run, const struct ddoq_quantize_args *args, size_t c,
                                   const double *uniforms);

#endif
