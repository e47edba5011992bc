/**
 * Little-endian encoding for the journal and the snapshot. The writer keeps one buffer for its life, so that encoding a
 * record allocates nothing; the reader checks every bound and throws DamageError, which callers turn into a message
 * that names the file.
 */

/** Bytes are not what this format allows. Never leaves the session layer. */
export class DamageError extends Error {}

const TWO_32 = 2 ** 32

export class ByteWriter {
  bytes: Buffer
  length = 0

  constructor(capacityBytes: number) {
    this.bytes = Buffer.allocUnsafe(capacityBytes)
  }

  reserve(count: number): number {
    const at = this.length
    if (at + count > this.bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, at + count))
      this.bytes.copy(larger, 0, 0, at)
      this.bytes = larger
    }
    this.length = at + count
    return at
  }

  u8(value: number): void {
    const at = this.reserve(1)
    this.bytes.writeUInt8(value, at)
  }

  u16(value: number): void {
    const at = this.reserve(2)
    this.bytes.writeUInt16LE(value, at)
  }

  u32(value: number): void {
    const at = this.reserve(4)
    this.bytes.writeUInt32LE(value, at)
  }

  /** a safe non-negative integer in eight bytes */
  u64(value: number): void {
    const at = this.reserve(8)
    putU64(this.bytes, value, at)
  }

  i64(value: bigint): void {
    const at = this.reserve(8)
    this.bytes.writeBigInt64LE(value, at)
  }

  /** UTF-8 with its length in two bytes */
  text(value: string): void {
    const count = Buffer.byteLength(value)
    this.u16(count)
    const at = this.reserve(count)
    this.bytes.write(value, at, count, 'utf8')
  }

  raw(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length)
    this.bytes.set(bytes, at)
  }

  words(values: Uint32Array): void {
    const at = this.reserve(values.length * 4)
    for (let index = 0; index < values.length; index++) this.bytes.writeUInt32LE(values[index] ?? 0, at + index * 4)
  }
}

export function putU64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32LE(value % TWO_32, at)
  bytes.writeUInt32LE(Math.floor(value / TWO_32), at + 4)
}

/** May be larger than a safe integer when the bytes are damaged: callers compare, readers refuse. */
export function getU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * TWO_32
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export class ByteReader {
  readonly bytes: Buffer
  readonly end: number
  at: number

  constructor(bytes: Buffer, start: number, end: number) {
    this.bytes = bytes
    this.at = start
    this.end = end
  }

  #take(count: number): number {
    const at = this.at
    if (at + count > this.end) throw new DamageError('a record ends before its last field')
    this.at = at + count
    return at
  }

  u8(): number {
    return this.bytes.readUInt8(this.#take(1))
  }

  u16(): number {
    return this.bytes.readUInt16LE(this.#take(2))
  }

  u32(): number {
    return this.bytes.readUInt32LE(this.#take(4))
  }

  u64(): number {
    const value = getU64(this.bytes, this.#take(8))
    if (!Number.isSafeInteger(value)) throw new DamageError('a number is out of range')
    return value
  }

  i64(): bigint {
    return this.bytes.readBigInt64LE(this.#take(8))
  }

  text(): string {
    const count = this.u16()
    const at = this.#take(count)
    try {
      return decoder.decode(this.bytes.subarray(at, at + count))
    } catch {
      throw new DamageError('a text is not valid UTF-8')
    }
  }

  /** a copy */
  raw(count: number): Buffer {
    const at = this.#take(count)
    return Buffer.from(this.bytes.subarray(at, at + count))
  }

  words(count: number): Uint32Array {
    const at = this.#take(count * 4)
    const values = new Uint32Array(count)
    for (let index = 0; index < count; index++) values[index] = this.bytes.readUInt32LE(at + index * 4)
    return values
  }
}
