/**
 * C structures of the kernel's protocol, described once as lists of fields: sizes, offsets, reading and writing follow
 * from the list. Fields are little-endian (all our machines) and must be aligned as a C compiler would align them, which
 * is asserted, so that a wrong list fails when the program starts.
 *
 * u64 and i64 are numbers and exact up to 2^53; what is larger is past every limit of the tree. `exact64` is a bigint.
 */
import assert from 'node:assert'

const SIZES = { u16: 2, u32: 4, i32: 4, u64: 8, i64: 8, exact64: 8 } as const
const WORD = 2 ** 32

export type FieldKind = keyof typeof SIZES
export type Fields = Readonly<Record<string, FieldKind>>
type ValueOf<Kind extends FieldKind> = Kind extends 'exact64' ? bigint : number
export type Values<F extends Fields> = { [Name in keyof F]: ValueOf<F[Name]> }

interface Field<Name> {
  readonly name: Name
  readonly kind: FieldKind
  readonly offset: number
}

export class Structure<F extends Fields> {
  readonly bytes: number
  readonly #fields: readonly Field<keyof F>[]

  constructor(fields: F) {
    const list: Field<keyof F>[] = []
    let offset = 0
    // Object.entries forgets the key type
    for (const [name, kind] of Object.entries(fields) as [keyof F, FieldKind][]) {
      assert(offset % SIZES[kind] === 0, `${String(name)} is not aligned`)
      list.push({ name, kind, offset })
      offset += SIZES[kind]
    }
    this.#fields = list
    this.bytes = offset
  }

  /** For those that read single fields where an object for all of them would cost too much. */
  offsetOf(name: keyof F): number {
    const field = this.#fields.find((known) => known.name === name)
    assert(field !== undefined)
    return field.offset
  }

  read(view: DataView, at: number): Values<F> {
    const values: Partial<Record<keyof F, number | bigint>> = {}
    for (const { name, kind, offset } of this.#fields) values[name] = readField(view, at + offset, kind)
    return values as Values<F> // each field was given the type of its kind
  }

  /** Fields that are not given are 0: an answer never carries bytes of an earlier one. */
  write(view: DataView, at: number, values: Partial<Values<F>>): void {
    for (const { name, kind, offset } of this.#fields) writeField(view, at + offset, kind, values[name] ?? 0)
  }
}

function readField(view: DataView, at: number, kind: FieldKind): number | bigint {
  switch (kind) {
    case 'u16':
      return view.getUint16(at, true)
    case 'u32':
      return view.getUint32(at, true)
    case 'i32':
      return view.getInt32(at, true)
    case 'u64':
      return view.getUint32(at + 4, true) * WORD + view.getUint32(at, true)
    case 'i64':
      return view.getInt32(at + 4, true) * WORD + view.getUint32(at, true)
    case 'exact64':
      return view.getBigUint64(at, true)
  }
}

function writeField(view: DataView, at: number, kind: FieldKind, value: number | bigint): void {
  switch (kind) {
    case 'u16': {
      view.setUint16(at, Number(value), true)
      return
    }
    case 'u32': {
      view.setUint32(at, Number(value), true)
      return
    }
    case 'i32': {
      view.setInt32(at, Number(value), true)
      return
    }
    case 'u64':
    case 'i64': {
      const number = Number(value)
      view.setUint32(at, number % WORD, true) // negative ones too: conversion is modulo 2^32
      view.setInt32(at + 4, Math.floor(number / WORD), true)
      return
    }
    case 'exact64': {
      view.setBigUint64(at, BigInt(value), true)
      return
    }
  }
}
