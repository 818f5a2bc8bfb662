/* The checksums of a .tsq file: CRC-32 as zlib's, SHA-256. */

#ifndef TSQ_CHECKSUMS_H
#define TSQ_CHECKSUMS_H

#include <stdint.h>

/* Four bits at a time. */
static inline uint32_t crc32(const uint8_t *data, uint32_t size)
{
    uint32_t crc = ~(uint32_t)0, table[16];
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int bit = 0; bit < 4; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xEDB88320 : 0);
    }
    for (uint32_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static const uint32_t ROUNDS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t turned(uint32_t x, int bits)
{
    return x >> bits | x << (32 - bits);
}

/* One block of SHA-256 (FIPS 180-4, section 6.2.2). */
static inline void sha256_block(uint32_t hash[8], const uint8_t *block)
{
    uint32_t w[64], h[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16
             | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + w[i - 7]
             + (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 8; i++)
        h[i] = hash[i];
    for (int i = 0; i < 64; i++) {
        const uint32_t one = h[7] + (turned(h[4], 6) ^ turned(h[4], 11) ^ turned(h[4], 25))
                           + ((h[4] & h[5]) ^ (~h[4] & h[6])) + ROUNDS[i] + w[i];
        const uint32_t two = (turned(h[0], 2) ^ turned(h[0], 13) ^ turned(h[0], 22))
                           + ((h[0] & h[1]) ^ (h[0] & h[2]) ^ (h[1] & h[2]));
        for (int k = 7; k > 0; k--)
            h[k] = h[k - 1];
        h[4] += one;
        h[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        hash[i] += h[i];
}

/* True if the SHA-256 of the data is the 32 bytes behind them. */
static inline int sha256_fits(const uint8_t *data, uint32_t size)
{
    uint32_t hash[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t last[128] = {0};
    const uint32_t rest = size % 64, end = rest < 56 ? 64 : 128;
    for (uint32_t at = 0; at + 64 <= size; at += 64)
        sha256_block(hash, data + at);
    for (uint32_t i = 0; i < rest; i++)
        last[i] = data[size - rest + i];
    last[rest] = 0x80;
    for (int i = 0; i < 5; i++) /* the length in bits, 35 of them at most */
        last[end - 1 - (uint32_t)i] = (uint8_t)((uint64_t)size * 8 >> 8 * i);
    for (uint32_t at = 0; at < end; at += 64)
        sha256_block(hash, last + at);
    for (int i = 0; i < 32; i++)
        if (data[size + (uint32_t)i] != (uint8_t)(hash[i / 4] >> (24 - 8 * (i % 4))))
            return 0;
    return 1;
}

#endif
