/* Unpacks a .tsq file, the compressed weights of one network, into float32. No allocation, no library.
 * The format, to the byte: weights/compression/fileformat.py of tinysqueeze. */

#ifndef TSQ_H
#define TSQ_H

#include <stdint.h>

/* The most values of a codebook and the most symbols of a Huffman code; tables of that size are static. */
#ifndef TSQ_SYMBOLS
#define TSQ_SYMBOLS 4096
#endif

typedef struct {
    float *values; /* where they go */
    uint32_t count;
} tsq_array_t;

/* The network that a file must be for: its arrays in the file's order, and what the file says of it. */
typedef struct {
    const tsq_array_t *arrays;
    uint32_t count, version, metadata; /* metadata: the CRC-32 of the file's first section */
} tsq_network_t;

enum {
    TSQ_OK,
    TSQ_NOT_TSQ,  /* it does not begin as one */
    TSQ_VERSION,  /* of the format, another one */
    TSQ_CUT,      /* its length is not what it says, or its sections do not fill it */
    TSQ_DAMAGED,  /* a checksum differs, or a section holds what none can */
    TSQ_OTHER,    /* whole, but for another network */
    TSQ_TOO_LARGE /* its tables need a larger TSQ_SYMBOLS */
};

/* All arrays out of the file, or a code that says why not; then the arrays may hold anything. */
int tsq_unpack(const uint8_t *file, uint32_t size, const tsq_network_t *network);

/* A code in words. */
const char *tsq_trouble(int code);

#endif
