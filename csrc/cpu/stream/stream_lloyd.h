/* Lloyd's iterations in streaming form. */
#ifndef DDOQ_CPU_STREAM_LLOYD_H
#define DDOQ_CPU_STREAM_LLOYD_H

#include "cpu/stream/stream.h"

/* Iterates from the points until the labels stay, the points shift by no more than tol, or max_iter; returns in *n_iter
 * how often. The points are then the means of cell. */
enum ddoq_status ddoq_stream_lloyd(struct ddoq_stream *stream, double tol, size_t max_iter, int64_t *n_iter);

#endif
