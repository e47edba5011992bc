/** What a VM may be after programs were told what they were told, and what of its contents is not as that. */
import { PAGE_BYTES } from '../../src/base/units.js'

/** Every value a file's page may have; the last is the newest that was answered. A page is filled with its value. */
export class ModelFile {
  readonly pages: number[][] = []
  /** the file's whole size in pages; only ever grows here */
  sizes: number[] = [0]

  constructor(values: readonly number[] = []) {
    this.pages = values.map((value) => [value])
    this.sizes = [values.length]
  }

  /** before a write is asked for */
  begin(page: number, value: number): void {
    while (this.pages.length <= page) this.pages.push([0])
    this.pages[page]?.push(value)
    if (page >= Math.max(...this.sizes)) this.sizes.push(page + 1)
  }

  /** the write was answered: a process that is killed after this has kept it, a power cut need not */
  answered(page: number): void {
    const values = this.pages[page]
    this.#answered.set(page, (values?.length ?? 1) - 1)
    this.#answeredSize = Math.max(this.#answeredSize, page + 1)
  }

  readonly #answered = new Map<number, number>()
  #answeredSize = 0

  /** what a read may bring while no write is under way: the last that was answered, or what came after it and failed */
  now(page: number): readonly number[] {
    return (this.pages[page] ?? []).slice(this.#answered.get(page) ?? 0)
  }

  /** A sync begins; when it has ended, what was answered until now counts. */
  syncing(): () => void {
    const answered = [...this.#answered].map(([page, index]) => [page, this.pages[page]?.[index]] as const)
    const size = this.#answeredSize
    return () => {
      for (const [page, value] of answered) {
        const dropped = value === undefined ? 0 : (this.pages[page]?.indexOf(value) ?? 0) // each value is written once
        this.pages[page]?.splice(0, Math.max(0, dropped))
        this.#answered.set(page, Math.max(0, (this.#answered.get(page) ?? 0) - Math.max(0, dropped)))
      }
      this.sizes = this.sizes.filter((each) => each >= size)
    }
  }

  /** what was answered counts whatever happens from now on */
  accept(): void {
    this.syncing()()
  }
}

/** What the VM may be. Names that are open have two answers. */
export class Model {
  readonly files = new Map<string, ModelFile>()
  /** name -> labels of what may have it; undefined: nothing */
  readonly names = new Map<string, (string | undefined)[]>()
  readonly #answered = new Map<string, string | undefined>()

  constructor(files: Readonly<Record<string, readonly number[]>>) {
    for (const [name, values] of Object.entries(files)) {
      this.files.set(name, new ModelFile(values))
      this.names.set(name, [name])
    }
  }

  begin(changes: Readonly<Record<string, string | undefined>>): void {
    for (const [name, label] of Object.entries(changes))
      this.names.set(name, [...(this.names.get(name) ?? [undefined]), label])
  }

  answered(changes: Readonly<Record<string, string | undefined>>): void {
    for (const [name, label] of Object.entries(changes)) this.#answered.set(name, label)
  }

  failed(changes: Readonly<Record<string, string | undefined>>): void {
    for (const name of Object.keys(changes)) this.names.get(name)?.pop()
  }

  /** the journal is durable: all that was answered counts */
  acceptNames(): void {
    for (const [name, label] of this.#answered) this.names.set(name, [label])
    this.#answered.clear()
  }

  acceptAll(): void {
    this.acceptNames()
    for (const file of this.files.values()) file.accept()
  }
}

/** values of a page of which the first half is new are above this, old + HALF + new */
export const HALF = 1_000_000

export function pageOf(value: number): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES)
  for (let at = 0; at < PAGE_BYTES; at += 4) bytes.writeUInt32LE(value, at)
  return bytes
}

function matches(page: Buffer, allowed: number): boolean {
  if (allowed < HALF) return page.equals(pageOf(allowed))
  // half new, half old
  const first = page.readUInt32LE(0)
  const second = page.readUInt32LE(PAGE_BYTES / 2)
  return (
    second + HALF + first === allowed &&
    page.subarray(0, PAGE_BYTES / 2).equals(pageOf(first).subarray(PAGE_BYTES / 2)) &&
    page.subarray(PAGE_BYTES / 2).equals(pageOf(second).subarray(PAGE_BYTES / 2))
  )
}

/** Why a page does not read as what was written last; `before` is now() when the read began, for writes that came meanwhile. */
export function staleIn(file: ModelFile, page: number, bytes: Buffer, before: readonly number[] = []): string[] {
  const allowed = [...before, ...file.now(page)]
  if (allowed.some((value) => matches(bytes, value))) return []
  return [`page ${String(page)} reads as ${String(bytes.readUInt32LE(0))}, allowed ${allowed.join()}`]
}

/** What is not as the model says. */
export function violations(model: Model, contents: ReadonlyMap<string, Buffer>): string[] {
  const found: string[] = []
  for (const [name, labels] of model.names) {
    const bytes = contents.get(name)
    if (bytes === undefined) {
      if (!labels.includes(undefined)) found.push(`${name} is missing`)
      continue
    }
    const why = labels.map((label) => (label === undefined ? 'it should be gone' : wrongIn(model, label, bytes)))
    if (!why.includes(undefined)) found.push(`${name}: ${why.join('; ')}`)
  }
  for (const name of contents.keys()) if (!model.names.has(name)) found.push(`${name} should not be there`)
  return found
}

function wrongIn(model: Model, label: string, bytes: Buffer): string | undefined {
  const file = model.files.get(label)
  if (file === undefined) return 'unknown'
  if (!file.sizes.includes(bytes.length / PAGE_BYTES))
    return `${String(bytes.length)} bytes, allowed ${file.sizes.join()} pages`
  for (const [index, allowed] of file.pages.entries()) {
    const page = bytes.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES)
    if (page.length > 0 && !allowed.some((value) => matches(page, value)))
      return `page ${String(index)} is ${String(page.readUInt32LE(0))}, allowed ${allowed.join()}`
  }
  return undefined
}
