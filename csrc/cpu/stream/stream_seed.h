/* Greedy k-means++ in streaming form. */
#ifndef DDOQ_CPU_STREAM_SEED_H
#define DDOQ_CPU_STREAM_SEED_H

#include "cpu/stream/stream.h"

/* Writes the stream's seeds, from the ddoq_uniforms_of_start(k) numbers in [0, 1). */
enum ddoq_status ddoq_stream_seed(struct ddoq_stream *stream, const double *uniforms);

#endif
