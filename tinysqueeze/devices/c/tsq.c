/* The decoder of .tsq files: checksums, rANS, Huffman codes, codebooks. See tsq.h. */

#include "tsq.h"

#include "tsq_checksums.h"

/* ----------------------------------------------------------------------------------- bytes
 * What remains of a piece of the file. Reading beyond its end gives zeros and marks it. */

typedef struct {
    const uint8_t *at, *end;
    int over;
} bytes_t;

static uint32_t left(const bytes_t *bytes)
{
    return (uint32_t)(bytes->end - bytes->at);
}

static uint32_t take(bytes_t *bytes, int count)
{
    uint32_t value = 0;
    if (left(bytes) < (uint32_t)count) {
        bytes->over = 1;
        bytes->at = bytes->end;
        return 0;
    }
    for (int i = 0; i < count; i++)
        value |= (uint32_t)*bytes->at++ << 8 * i;
    return value;
}

/* The next `count` bytes as a piece of their own; all that is left if they are fewer. */
static bytes_t split(bytes_t *bytes, uint32_t count)
{
    bytes_t piece = {bytes->at, bytes->end, 0};
    if (count < left(bytes))
        piece.end = bytes->at + count;
    else
        bytes->over |= count > left(bytes);
    bytes->at = piece.end;
    return piece;
}

/* --------------------------------------------------------------------------------- numbers */

static float float_of(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } both = {bits};
    return both.value;
}

/* A float32's bits from those of a float16. */
static uint32_t widened(uint32_t half)
{
    const uint32_t sign = half >> 15 << 31;
    uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31)
        return sign | 0x7F800000 | fraction << 13;
    if (exponent == 0) {
        if (fraction == 0)
            return sign;
        for (exponent = 1; !(fraction & 1024); exponent--)
            fraction <<= 1;
        fraction &= 1023;
    }
    return sign | (exponent + 112) << 23 | fraction << 13;
}

/* The next number of 2 or 4 bytes; what is not finite marks the piece. */
static float number(bytes_t *bytes, int size)
{
    const uint32_t bits = size == 2 ? widened(take(bytes, 2)) : take(bytes, 4);
    if ((bits & 0x7F800000) == 0x7F800000)
        bytes->over = 1;
    return float_of(bits);
}

/* What levels stand for: multiples of a step, or ranks in a codebook that is sorted here. */
typedef struct {
    int32_t lowest, highest; /* levels */
    const float *zero;       /* of a codebook: where level 0 would lie; a step's: none */
    float step;
} scale_t;

static float codebook[TSQ_SYMBOLS];

/* Read a codebook; `size` bytes each. Returns a code. */
static int read_codebook(bytes_t *bytes, int size, scale_t *scale)
{
    const int32_t count = (int32_t)take(bytes, 2);
    int32_t negative = 0;
    if (count > TSQ_SYMBOLS)
        return TSQ_TOO_LARGE;
    for (int32_t i = 0; i < count; i++) { /* most come sorted, so that nothing moves */
        const float value = number(bytes, size);
        int32_t at = i;
        for (; at > 0 && codebook[at - 1] > value; at--)
            codebook[at] = codebook[at - 1];
        codebook[at] = value;
        negative += value < 0;
    }
    scale->lowest = -negative;
    scale->highest = count - negative;
    scale->zero = codebook + negative;
    return bytes->over ? TSQ_DAMAGED : TSQ_OK;
}

/* Store what a level stands for; false where it lies outside the codebook. */
static int store(const scale_t *scale, int32_t level, float *value)
{
    if (!scale->zero) {
        *value = (float)level * scale->step;
        return 1;
    }
    if (level < scale->lowest || level > scale->highest)
        return 0;
    *value = level == 0 ? 0 : level < 0 ? scale->zero[level] : scale->zero[level - 1];
    return 1;
}

/* ------------------------------------------------------------------------------------ rANS */

/* A byte can't hold more levels, since no token's share is 4096. */
enum { TOKENS = 112, WHOLE = 4096, LEVELS_A_BYTE = 8 * 2840 };

static uint8_t token_of[WHOLE];

/* Levels by asymmetric numeral systems: rans.py, `encode_levels`. */
static int read_rans(bytes_t bytes, const scale_t *scale, const tsq_array_t *array)
{
    uint32_t shares[TOKENS], starts[TOKENS], whole = 0;
    const uint32_t size = left(&bytes), tokens = take(&bytes, 1), plain_bytes = take(&bytes, 4);
    if (tokens > TOKENS || array->count > (uint64_t)LEVELS_A_BYTE * (size + 1))
        return TSQ_DAMAGED;
    for (uint32_t token = 0; token < tokens; token++) {
        uint32_t share = take(&bytes, 1);
        if (share & 128)
            share = (share & 127) + (take(&bytes, 1) << 7);
        shares[token] = share;
        starts[token] = whole;
        whole += share;
        if (whole > WHOLE || share == WHOLE)
            return TSQ_DAMAGED;
        for (uint32_t slot = starts[token]; slot < whole; slot++)
            token_of[slot] = (uint8_t)token;
    }
    bytes_t plain = split(&bytes, plain_bytes);
    uint32_t state = take(&bytes, 4), other = take(&bytes, 4), pool = 0;
    int pooled = 0; /* bits of `pool`, not used yet */
    if (whole != WHOLE || bytes.over)
        return TSQ_DAMAGED;
    for (uint32_t i = 0; i < array->count; i++) {
        const uint32_t slot = state % WHOLE, token = token_of[slot];
        uint32_t now = shares[token] * (state / WHOLE) + slot - starts[token];
        if (now < 1u << 16)
            now = now << 16 | take(&bytes, 2);
        state = other; /* the two take turns */
        other = now;
        const uint32_t m = (token + 1) / 2, spare = m < 8 ? 0 : m / 4 - 1;
        while (pooled < (int)spare) {
            pool |= take(&plain, 1) << pooled;
            pooled += 8;
        }
        const int32_t low = (int32_t)(pool & ((1u << spare) - 1));
        const int32_t size_of = (int32_t)((m - 4 * spare) << spare) + low;
        pool >>= spare;
        pooled -= (int)spare;
        if (!store(scale, token % 2 ? size_of : -size_of, array->values + i))
            return TSQ_DAMAGED;
    }
    const int ended = state == 1u << 16 && other == 1u << 16 && !left(&bytes) && !bytes.over;
    return ended && !left(&plain) && !plain.over && pool == 0 ? TSQ_OK : TSQ_DAMAGED;
}

/* --------------------------------------------------------------------------------- Huffman */

enum { LONGEST = 15 };

/* A canonical code: its symbols in the order of their codes, and how many are of each length. */
typedef struct {
    uint32_t of_length[LONGEST + 1];
    uint16_t *symbols;
} code_t;

/* Four bits a symbol; false where these are no code's lengths. */
static int read_code(bytes_t *bytes, uint32_t alphabet, code_t *code)
{
    const uint8_t *lengths = bytes->at;
    uint32_t codes = 0, place = 0;
    split(bytes, (alphabet + 1) / 2);
    if (bytes->over || (alphabet % 2 && lengths[alphabet / 2] >> 4))
        return 0;
    for (int length = 0; length <= LONGEST; length++)
        code->of_length[length] = 0;
    for (int length = 1; length <= LONGEST; length++) {
        for (uint32_t symbol = 0; symbol < alphabet; symbol++)
            if ((lengths[symbol / 2] >> 4 * (symbol % 2) & 15) == length) {
                code->symbols[place++] = (uint16_t)symbol;
                code->of_length[length]++;
            }
        codes = 2 * codes + code->of_length[length];
        if (codes > 1u << length)
            return 0;
    }
    return 1;
}

typedef struct {
    bytes_t bytes;
    uint32_t byte;
    int held; /* bits of `byte` that are still to be read, the highest first */
} bits_t;

/* The next symbol, bit by bit; -1 where no code begins so or the bits are at their end. */
static int32_t symbol_of(bits_t *bits, const code_t *code)
{
    uint32_t word = 0, first = 0, place = 0;
    for (int length = 1; length <= LONGEST; length++) {
        if (!bits->held) {
            bits->byte = take(&bits->bytes, 1);
            bits->held = 8;
        }
        word = 2 * word + (bits->byte >> --bits->held & 1);
        if (bits->bytes.over)
            return -1;
        if (word - first < code->of_length[length])
            return code->symbols[place + word - first];
        place += code->of_length[length];
        first = 2 * (first + code->of_length[length]);
    }
    return -1;
}

/* True where all bits have been read but those that fill the last byte, which are zeros. */
static int ended(const bits_t *bits)
{
    return !left(&bits->bytes) && !(bits->byte & ((1u << bits->held) - 1));
}

/* Levels as the paper stores them: gaps between the entries, and the entries. */
static int read_huffman(bytes_t bytes, const scale_t *scale, const tsq_array_t *array)
{
    static uint16_t gap_symbols[16], level_symbols[TSQ_SYMBOLS];
    code_t gap_code = {{0}, gap_symbols}, level_code = {{0}, level_symbols};
    const uint32_t entries = take(&bytes, 4), gap_bytes = take(&bytes, 4);
    const int32_t lowest = (int32_t)(take(&bytes, 2) ^ 0x8000) - 0x8000;
    const uint32_t alphabet = take(&bytes, 2);
    if (alphabet > TSQ_SYMBOLS)
        return TSQ_TOO_LARGE;
    if (entries > array->count || !read_code(&bytes, 16, &gap_code)
        || !read_code(&bytes, alphabet, &level_code))
        return TSQ_DAMAGED;
    bits_t gaps = {split(&bytes, gap_bytes), 0, 0}, levels = {bytes, 0, 0};
    for (uint32_t i = 0; i < array->count; i++)
        store(scale, 0, array->values + i); /* -0 where the step is negative */
    uint32_t place = 0; /* behind the last entry */
    for (uint32_t i = 0; i < entries; i++) {
        const int32_t gap = symbol_of(&gaps, &gap_code), symbol = symbol_of(&levels, &level_code);
        if (gap < 0 || symbol < 0 || (uint32_t)gap >= array->count - place)
            return TSQ_DAMAGED;
        place += (uint32_t)gap;
        if (!store(scale, symbol + lowest, array->values + place++))
            return TSQ_DAMAGED;
    }
    return !bytes.over && ended(&gaps) && ended(&levels) ? TSQ_OK : TSQ_DAMAGED;
}

/* -------------------------------------------------------------------------------- the file */

/* One array out of its section's content. */
static int read_array(uint32_t kind, bytes_t bytes, const tsq_array_t *array)
{
    scale_t scale = {0, 0, 0, 0};
    int code = TSQ_OK;
    if (kind == 'D' || kind == 'H') {
        const int size = kind == 'D' ? 4 : 2;
        for (uint32_t i = 0; i < array->count; i++)
            array->values[i] = number(&bytes, size);
        return bytes.over || left(&bytes) ? TSQ_DAMAGED : TSQ_OK;
    }
    if (kind == 'S')
        scale.step = number(&bytes, 4);
    else if (kind == 'C' || kind == 'c')
        code = read_codebook(&bytes, kind == 'C' ? 4 : 2, &scale);
    else
        return TSQ_DAMAGED;
    if (code)
        return code;
    const uint32_t coding = take(&bytes, 1);
    if (bytes.over || coding > 1)
        return TSQ_DAMAGED;
    return coding ? read_huffman(bytes, &scale, array) : read_rans(bytes, &scale, array);
}

/* The next section, its checksum checked. */
static int read_section(bytes_t *file, uint32_t *kind, bytes_t *content, uint32_t *crc)
{
    const uint8_t *start = file->at;
    const uint32_t length = take(file, 4);
    *kind = take(file, 1);
    *content = split(file, length);
    const uint32_t size = (uint32_t)(file->at - start);
    *crc = take(file, 4);
    if (file->over)
        return TSQ_CUT;
    return crc32(start, size) == *crc ? TSQ_OK : TSQ_DAMAGED;
}

enum { MOST_A_BYTE = 256 }; /* parameters: the format's own bound */

int tsq_unpack(const uint8_t *file, uint32_t size, const tsq_network_t *network)
{
    static const uint8_t magic[8] = {0x89, 'T', 'S', 'Q', '\r', '\n', 0x1A, '\n'};
    for (uint32_t i = 0; i < 8; i++)
        if (i >= size || file[i] != magic[i])
            return TSQ_NOT_TSQ;
    if (size < 20 + 32)
        return TSQ_CUT;
    bytes_t head = {file + 8, file + 20, 0};
    const uint32_t version = take(&head, 2), count = take(&head, 2), length = take(&head, 4);
    if (take(&head, 4) != crc32(file, 16))
        return TSQ_DAMAGED;
    if (version != 2 && version != 3)
        return TSQ_VERSION;
    if (length != size)
        return TSQ_CUT;
    const bytes_t all = {file + 20, file + size - 32, 0};
    bytes_t rest = all, content;
    uint32_t kind, crc, metadata = 0;
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) { /* nothing is believed before its checksum was */
        const int code = read_section(&rest, &kind, &content, &crc);
        if (code)
            return code;
        if (i == 0 && kind == 'M')
            metadata = crc;
    }
    if (left(&rest))
        return TSQ_CUT;
    if (!sha256_fits(file, size - 32))
        return TSQ_DAMAGED;
    if (metadata != network->metadata || version != network->version || count != network->count + 1)
        return TSQ_OTHER;
    for (uint32_t i = 0; i < network->count; i++)
        total += network->arrays[i].count;
    if (total > (uint64_t)MOST_A_BYTE * size)
        return TSQ_DAMAGED;
    rest = all;
    for (uint32_t i = 0; i < count; i++) {
        read_section(&rest, &kind, &content, &crc);
        const int code = i ? read_array(kind, content, network->arrays + i - 1) : TSQ_OK;
        if (code)
            return code;
    }
    return TSQ_OK;
}

const char *tsq_trouble(int code)
{
    static const char *const words[] = {
        "all right",
        "not a .tsq file: it does not begin as one",
        "of a version of the format that this program does not read",
        "cut off or joined to another: its length is not what it says",
        "damaged: a checksum differs, or it holds what no such file can",
        "the weights of another network, or of one with other settings",
        "its tables are larger than TSQ_SYMBOLS",
    };
    return code >= TSQ_OK && code <= TSQ_TOO_LARGE ? words[code] : "no such code";
}
