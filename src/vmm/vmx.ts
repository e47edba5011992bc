/**
 * A VMware configuration (.vmx): lines `key = "value"`, keys without regard to case, `|22` for a character by its code,
 * `#` comments. VMware documents no grammar; this is what Workstation 5 to 17 write.
 */
import { FailedError } from '../base/errors.js'

export const VMX_BYTES_MAX = 1024 * 1024

const LINE = /^\s*([^\s=#][^=]*?)\s*=\s*"([^"]*)"\s*(?:#.*)?$/
const BARE_LINE = /^\s*([^\s=#][^=]*?)\s*=\s*([^\s"#]+)\s*(?:#.*)?$/
const NOTHING = /^\s*(?:#.*)?$/
const ENCODING = /^\s*\.encoding\s*=\s*"([^"]*)"/m
/** Controllers whose units can be disks. */
const UNIT = /^((?:scsi|sata|ide|nvme)\d+):(\d+)\.filename$/

export interface VmxDisk {
  /** as in the file, such as `scsi0:0` */
  readonly unit: string
  /** `scsi0` */
  readonly controller: string
  /** as written: relative to the directory of the .vmx, or absolute */
  readonly fileName: string
}

/** A line that VMware stumbles over. */
export interface VmxProblem {
  readonly kind: 'no setting' | 'twice'
  /** from 1 */
  readonly line: number
  readonly text: string
}

export class Vmx {
  readonly problems: readonly VmxProblem[]
  readonly #values: ReadonlyMap<string, string>

  constructor(values: ReadonlyMap<string, string>, problems: readonly VmxProblem[]) {
    this.#values = values
    this.problems = problems
  }

  get(key: string): string | undefined {
    return this.#values.get(key.toLowerCase())
  }

  isTrue(key: string): boolean {
    return this.get(key)?.toUpperCase() === 'TRUE'
  }

  isFalse(key: string): boolean {
    return this.get(key)?.toUpperCase() === 'FALSE'
  }

  /** Lower-case keys that match. */
  keys(pattern: RegExp): string[] {
    return [...this.#values.keys()].filter((key) => pattern.test(key))
  }

  /** Hard disks that are present, in the order of their units. CD-ROM drives and floppies are not among them. */
  disks(): VmxDisk[] {
    return this.keys(UNIT)
      .flatMap((key) => {
        const [, controller = '', number = ''] = UNIT.exec(key) ?? []
        const unit = `${controller}:${number}`
        const isThere = this.isTrue(`${unit}.present`) && !this.isFalse(`${controller}.present`)
        const kind = this.get(`${unit}.deviceType`)?.toLowerCase() ?? 'disk'
        return isThere && !kind.includes('cdrom') ? [{ unit, controller, fileName: this.get(key) ?? '' }] : []
      })
      .sort((first, second) => first.unit.localeCompare(second.unit, 'en', { numeric: true }))
  }
}

/** Throws FailedError for what is not a .vmx at all; lines that cannot be understood are passed over, and named in `problems`. Of two values the last counts. */
export function parseVmx(bytes: Uint8Array, name: string): Vmx {
  const text = decode(bytes)
  if (isUtf16(bytes)) {
    throw new FailedError(`${name} is UTF-16, which VMware does not read`, {
      hint: `save it as UTF-8, or: iconv -f UTF-16 -t UTF-8 '${name}' > new.vmx`
    })
  }
  if (text.includes('\0')) throw new FailedError(`${name} is not a VMware configuration: it has binary content`)
  const values = new Map<string, string>()
  const problems: VmxProblem[] = []
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const [, key, value] = LINE.exec(line) ?? BARE_LINE.exec(line) ?? []
    const problem = (kind: VmxProblem['kind']): void =>
      void problems.push({ kind, line: index + 1, text: line.trim().slice(0, 200) })
    if (key === undefined || value === undefined) {
      if (!NOTHING.test(line)) problem('no setting')
      continue
    }
    if (values.has(key.toLowerCase())) problem('twice')
    values.set(key.toLowerCase(), unescape(value))
  }
  if (values.size === 0) {
    throw new FailedError(`${name} is not a VMware configuration: it has no line  key = "value"`)
  }
  return new Vmx(values, problems)
}

/** By its byte order mark: what some editors of Windows write. */
function isUtf16([first, second]: Uint8Array): boolean {
  return (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)
}

function decode(bytes: Uint8Array): string {
  const label = ENCODING.exec(Buffer.from(bytes).toString('latin1'))?.[1] ?? 'UTF-8'
  try {
    return new TextDecoder(label).decode(bytes)
  } catch {
    return new TextDecoder().decode(bytes) // an encoding that nobody knows: the keys are ASCII in all of them
  }
}

function unescape(value: string): string {
  return value.replace(/\|([0-9a-fA-F]{2})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)))
}
