/** What binding.ts uses of the optional package: isrfs is built and checked where it is not installed, too. */
declare module 'fuse-native' {
  type Done = (error: Error | null | undefined) => void

  interface Operations {
    /** INIT: 0 and the capabilities to ask for */
    initWithConfig(
      connection: { readonly capable: number; readonly want: number },
      answer: (errno: number, config: { readonly want: number }) => void
    ): void
    destroy(answer: (errno: number) => void): void
  }

  interface Options {
    onError(error: unknown, operation: string): void
    readonly [name: string]: unknown
  }

  export default class Fuse {
    constructor(mountpoint: string, operations: Operations, options: Options)
    mount(done: Done): void
    unmount(done: Done): void
    /** of the request that is being answered */
    context(): { readonly uid: number; readonly gid: number } | undefined
  }
}
