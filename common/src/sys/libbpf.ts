// The few functions of libbpf.so.1 that load an object file. Opened on first use: a machine without it
// has no eBPF redirection, and everything else works.

import koffi from "koffi";
import { errorMessage } from "../process/errors.ts";
import { SystemError } from "./libc.ts";

/** A pointer that only libbpf looks into. */
export type Opaque = { readonly __brand: "libbpf" } | null;

function open() {
  const lib = koffi.load("libbpf.so.1");
  return {
    openMemory: lib.func(
      "void *bpf_object__open_mem(const void *bytes, size_t length, const void *options)",
    ),
    load: lib.func("int bpf_object__load(void *object)"),
    close: lib.func("void bpf_object__close(void *object)"),
    findMap: lib.func("void *bpf_object__find_map_by_name(void *object, const char *name)"),
    findProgram: lib.func("void *bpf_object__find_program_by_name(void *object, const char *name)"),
    nextProgram: lib.func("void *bpf_object__next_program(void *object, void *previous)"),
    setAutoload: lib.func("int bpf_program__set_autoload(void *program, bool autoload)"),
    setLogBuffer: lib.func(
      "int bpf_program__set_log_buf(void *program, void *bytes, size_t length)",
    ),
    programFd: lib.func("int bpf_program__fd(void *program)"),
    programName: lib.func("const char *bpf_program__name(void *program)"),
    mapFd: lib.func("int bpf_map__fd(void *map)"),
    setInitialValue: lib.func(
      "int bpf_map__set_initial_value(void *map, const void *bytes, size_t length)",
    ),
    reuseFd: lib.func("int bpf_map__reuse_fd(void *map, int fd)"),
    setPrint: lib.func("void *libbpf_set_print(void *print)"),
  };
}

let library: ReturnType<typeof open> | undefined;

/** Throws an error that says what to install. */
export function libbpf(): ReturnType<typeof open> {
  if (library !== undefined) return library;
  try {
    library = open();
  } catch (error) {
    throw new Error(`libbpf.so.1 is missing: install libbpf1 (${errorMessage(error)})`, {
      cause: error,
    });
  }
  // Without a printer libbpf is quiet; what failed is told by errors and by the verifier's log.
  library.setPrint(null);
  return library;
}

/** For libbpf's functions that return 0 or a negative errno. */
export function check(result: number, what: string): void {
  if (result < 0) throw new SystemError("libbpf", -result, what);
}
