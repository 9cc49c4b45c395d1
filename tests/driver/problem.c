#include "problem.h"

#include <stdlib.h>
#include <string.h>

static uint64_t state;

void seed_random(uint64_t seed)
{
    state = seed;
}

uint64_t below(uint64_t n)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % n;
}

size_t odd_size(size_t most)
{
    static const size_t sizes[] = {1,  2,  3,  4,  5,  7,  8,  9,   12,  15,  16,  17,  31,  32,  33,  47,  48,
                                   49, 63, 64, 65, 95, 96, 97, 127, 128, 191, 192, 193, 255, 256, 257, 511, 513};
    size_t size = below(4) ? sizes[below(sizeof sizes / sizeof *sizes)] : 1 + below(most);
    return size <= most ? size : 1 + size % most;
}

void *input(struct call *call, size_t n, size_t item)
{
    void *memory = malloc(n * item);
    if (!memory || call->n_inputs == MAX_INPUTS)
        abort();
    return call->inputs[call->n_inputs++] = memory;
}

void free_call(struct call *call)
{
    while (call->n_inputs > 0)
        free(call->inputs[--call->n_inputs]);
}

void output(struct call *call, size_t n, size_t item, const void *initial)
{
    call->initial[call->n_outputs] = initial;
    call->bytes[call->n_outputs++] = n * item;
}

double uniform(void)
{
    return (double)below(UINT64_C(1) << 53) * 0x1p-53;
}

size_t item_of(enum ddoq_type type)
{
    return type == DDOQ_FLOAT64 ? 8 : type == DDOQ_FLOAT32 ? 4 : 2;
}

enum ddoq_type real_of(enum ddoq_type type)
{
    return type == DDOQ_FLOAT64 ? DDOQ_FLOAT64 : DDOQ_FLOAT32;
}

/* Truncated; below 2^16, what is below 2^-14 becomes 0. */
static uint16_t to_float16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, exponent = bits >> 23 & 255, fraction = bits >> 13 & 0x3ff;
    if (exponent == 255)
        return (uint16_t)(sign | 0x7c00 | fraction);
    return (uint16_t)(exponent < 113 ? sign : sign | (exponent - 112) << 10 | fraction);
}

void put(enum ddoq_type type, void *array, size_t i, double value)
{
    float narrow = (float)value;
    if (type == DDOQ_FLOAT64)
        ((double *)array)[i] = value;
    else if (type == DDOQ_FLOAT32)
        ((float *)array)[i] = narrow;
    else if (type == DDOQ_FLOAT16)
        ((uint16_t *)array)[i] = to_float16(narrow);
    else
        memcpy((uint16_t *)array + i, (char *)&narrow + 2, 2); /* truncated, little-endian */
}

void *reals(struct call *call, enum ddoq_type type, size_t n, double low, double high)
{
    void *array = input(call, n, item_of(type));
    bool coarse = below(2);
    for (size_t i = 0; i < n; i++)
        put(type, array, i, low + (high - low) * (coarse ? (double)below(5) / 4 : uniform()));
    return array;
}

double *doubles(struct call *call, size_t n, double low, double high)
{
    return reals(call, DDOQ_FLOAT64, n, low, high);
}

const char *type_name(enum ddoq_type type)
{
    static const char *const names[] = {"float32", "float64", "bfloat16", "float16"};
    return names[type];
}
