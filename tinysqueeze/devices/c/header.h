/* @MODEL@ in plain C99 (@KIND@), written by tinysqueeze. No allocation, no dependency.
 *
 * @FIRST@Fill @NAME@_input() with one image of @HEIGHT@ x @WIDTH@ pixels of @CHANNELS@ channels, row by row,
 * channels side by side: @INPUT_NOTE@
 * Then @NAME@_run() returns the @CLASSES@ logits, valid until the next run. Running overwrites
 * the input. Logits times @MACRO@_LOGIT_SCALE are those of the float network.
 *
 * Memory: @FLASH@ bytes of @CONSTANTS@, @RAM@ bytes of RAM (arena @ARENA@, sums @SCRATCH@,
 * logits @OUTPUT@@UNPACKED@), and a stack of @STACK@ bytes. */

#ifndef @MACRO@_H
#define @MACRO@_H

#include <stdint.h>

#define @MACRO@_INPUT @INPUT@ /* values in an image */
#define @MACRO@_CLASSES @CLASSES@
#define @MACRO@_LOGIT_SCALE @LOGIT_SCALE@

@LOAD@@VALUE@ *@NAME@_input(void);
const @LOGIT@ *@NAME@_run(void);

#endif
