/**
 * The local files that one unit reads from: each is opened once. At most as many as a unit has blocks, closed at its end.
 */
import fs from 'node:fs'
import { errnoOf, FailedError, messageOf } from '../base/errors.js'

const FLAGS = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK

export class OpenFiles {
  readonly #descriptors = new Map<string, number>()

  /**
   * Reads up to `length` bytes; fewer only at the end of the file. Errors name the file.
   */
  read(path: string, into: Buffer, at: number, length: number, position: number): number {
    try {
      const descriptor = this.#open(path)
      let done = 0
      while (done < length) {
        const count = fs.readSync(descriptor, into, at + done, length - done, position + done)
        if (count === 0) break
        done += count
      }
      return done
    } catch (error) {
      throw new FailedError(`cannot read ${path}: ${messageOf(error)}`, { cause: error })
    }
  }

  close(): void {
    for (const descriptor of this.#descriptors.values()) fs.closeSync(descriptor)
    this.#descriptors.clear()
  }

  #open(path: string): number {
    const known = this.#descriptors.get(path)
    if (known !== undefined) return known
    const descriptor = openWithoutAccessTime(path)
    this.#descriptors.set(path, descriptor)
    return descriptor
  }
}

/** Reading a file for an import should not change it: O_NOATIME, which only its owner may ask for. */
function openWithoutAccessTime(path: string): number {
  try {
    return fs.openSync(path, FLAGS | fs.constants.O_NOATIME)
  } catch (error) {
    if (errnoOf(error) !== 'EPERM') throw error
    return fs.openSync(path, FLAGS)
  }
}
