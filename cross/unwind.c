/* In place of libunwind. Panics abort and the binaries carry no tables to unwind by, so a backtrace is empty anyway; but
 * std's panic message asks for one where RUST_BACKTRACE is set, and would bring the whole library in. */
#include <stdint.h>

int _Unwind_Backtrace(void *trace, void *argument) {
    (void)trace, (void)argument;
    return 5; /* _URC_END_OF_STACK */
}

uintptr_t _Unwind_GetIP(void *context) {
    (void)context;
    return 0;
}

uintptr_t _Unwind_GetCFA(void *context) {
    (void)context;
    return 0;
}

uintptr_t _Unwind_GetIPInfo(void *context, int *before) {
    (void)context;
    *before = 0;
    return 0;
}

/* The same on ARM, where GetIP reads a register of the context. */
int _Unwind_VRS_Get(void *context, int kind, uint32_t number, int type, void *value) {
    (void)context, (void)kind, (void)number, (void)type;
    *(uint32_t *)value = 0;
    return 0;
}

int _Unwind_VRS_Set(void *context, int kind, uint32_t number, int type, void *value) {
    (void)context, (void)kind, (void)number, (void)type, (void)value;
    return 0;
}

void *_Unwind_FindEnclosingFunction(void *address) { return address; }
