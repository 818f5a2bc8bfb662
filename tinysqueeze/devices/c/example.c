/* Reads images as raw values from standard input and prints the best class of each. */

#include <stdio.h>

#include "@NAME@.h"

int main(void)
{
    while (fread(@NAME@_input(), sizeof(@VALUE@), @MACRO@_INPUT, stdin) == @MACRO@_INPUT) {
        const @LOGIT@ *logits = @NAME@_run();
        int best = 0;
        for (int i = 1; i < @MACRO@_CLASSES; i++)
            if (logits[i] > logits[best])
                best = i;
        printf("class %d, logit %g\n", best, (double)logits[best] * @MACRO@_LOGIT_SCALE);
    }
    return 0;
}
