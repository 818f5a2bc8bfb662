/* Unpacks the weights of the file named, reads images as raw values from standard input and prints the
 * best class of each: ./example @NAME@.tsq < images */

#include <stdio.h>

#include "@NAME@.h"
#include "tsq.h"

int main(int words, char **word)
{
    static uint8_t bytes[@FLASH@ + 1];
    FILE *file = words == 2 ? fopen(word[1], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "name the .tsq file with the weights\n");
        return 1;
    }
    const int code = @NAME@_load(bytes, (uint32_t)fread(bytes, 1, sizeof bytes, file));
    fclose(file);
    if (code) {
        fprintf(stderr, "%s: %s\n", word[1], tsq_trouble(code));
        return 1;
    }
    while (fread(@NAME@_input(), sizeof(float), @MACRO@_INPUT, stdin) == @MACRO@_INPUT) {
        const float *logits = @NAME@_run();
        int best = 0;
        for (int i = 1; i < @MACRO@_CLASSES; i++)
            if (logits[i] > logits[best])
                best = i;
        printf("class %d, logit %g\n", best, logits[best]);
    }
    return 0;
}
