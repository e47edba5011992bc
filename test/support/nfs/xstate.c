/*
 * For LD_PRELOAD with User-Mode Linux 6.1, which knows 2,696 bytes of a thread's extended processor state. Linux refuses to set fewer than
 * the processor has (EFAULT, since it checks the header: arch/x86/kernel/fpu/regset.c, xstateregs_set), and processors with AMX have 11,008: the
 * guest's init dies with "ptrace set fp regs failed". Here what UML does not know stays as the kernel has it. cc -shared -fPIC -o xstate.so xstate.c
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

typedef long (*ptrace_call)(enum __ptrace_request request, ...);

static ptrace_call next;
/* UML's own stacks are small, and one thread of it calls ptrace. */
static char whole[256 * 1024];

__attribute__((constructor)) static void find(void) { next = (ptrace_call)dlsym(RTLD_NEXT, "ptrace"); }

static struct iovec completed(void *process, const struct iovec *known) {
  struct iovec all = {whole, sizeof whole};
  if (next(PTRACE_GETREGSET, process, NT_X86_XSTATE, &all) != 0 || all.iov_len <= known->iov_len) return *known;
  memcpy(whole, known->iov_base, known->iov_len);
  return all;
}

long ptrace(enum __ptrace_request request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *process = va_arg(arguments, void *);
  void *address = va_arg(arguments, void *);
  void *data = va_arg(arguments, void *);
  va_end(arguments);
  if (request != PTRACE_SETREGSET || address != (void *)NT_X86_XSTATE) return next(request, process, address, data);
  struct iovec state = completed(process, data);
  return next(request, process, address, &state);
}
