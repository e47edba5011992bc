/**
 * Profiles: in which order an earlier mount first read its blocks (docs/format.md, "Profiles"). Advice for the order of
 * fetches and nothing else: a profile names no bytes and no chunks, so whatever somebody writes into one, every block still
 * comes by the map and is verified. One that cannot be read or believed counts as none.
 */
import * as z from 'zod'
import { BLOCK_BYTES, FILE_BYTES_MAX } from '../base/units.js'
import type { Share } from '../share/share.js'
import { count, parseVersioned, positive } from './validation.js'

const PROFILE_FORMAT = 'isrfs-profile'
const PROFILE_VERSION = 1
const FOLDER = 'profiles'
const NAME_PATTERN = /^(\d{8})\.json$/
const PROFILE_BYTES_MAX = 1024 * 1024
/** 2 GiB: the working set of a resume many times over */
export const PROFILE_BLOCKS_MAX = 16_384
const PROFILES_KEPT = 4
const FILE_BLOCKS_MAX = FILE_BYTES_MAX / BLOCK_BYTES

/** Blocks of one file, one after another. */
const runSchema = z.object({
  inode: positive,
  first: count.max(FILE_BLOCKS_MAX),
  count: positive.max(PROFILE_BLOCKS_MAX),
  /** mounts in a row that did not read them */
  missed: count.max(100)
})

const profileSchema = z.object({
  format: z.literal(PROFILE_FORMAT),
  version: z.literal(PROFILE_VERSION),
  runs: z
    .array(runSchema)
    .max(PROFILE_BLOCKS_MAX)
    .refine((runs) => runs.reduce((blocks, run) => blocks + run.count, 0) <= PROFILE_BLOCKS_MAX, 'has too many blocks')
})

export type ProfileRun = Readonly<z.infer<typeof runSchema>>

/** In the order in which blocks were first read. */
export interface Profile {
  readonly runs: readonly ProfileRun[]
}

/** The newest profile that is not of a later generation; undefined when there is none that can be used. */
export function readProfile(share: Share, generation: number): Profile | undefined {
  try {
    const number = numbers(share)
      .filter((each) => each <= generation)
      .at(-1)
    if (number === undefined) return undefined
    const name = nameOf(number)
    return parseProfile(share.read(name, PROFILE_BYTES_MAX), share.pathOf(name))
  } catch {
    return undefined // advice that cannot be had
  }
}

/** Throws IntegrityError when the bytes are no profile of this version. */
export function parseProfile(bytes: Buffer, what: string): Profile {
  return parseVersioned(bytes, { format: PROFILE_FORMAT, version: PROFILE_VERSION, schema: profileSchema }, what)
}

export function encodeProfile({ runs }: Profile): Buffer {
  return Buffer.from(`${JSON.stringify({ format: PROFILE_FORMAT, version: PROFILE_VERSION, runs })}\n`)
}

/** Writes the profile of a generation in place of what it has, and removes those of generations long past. */
export function writeProfile(share: Share, generation: number, profile: Profile): void {
  const bytes = encodeProfile(profile)
  if (bytes.length > PROFILE_BYTES_MAX) return
  share.makeDirectory(FOLDER)
  share.write(nameOf(generation), bytes)
  for (const number of numbers(share).slice(0, -PROFILES_KEPT)) share.removeQuietly(nameOf(number))
}

function nameOf(generation: number): string {
  return `${FOLDER}/${String(generation).padStart(8, '0')}.json`
}

function numbers(share: Share): number[] {
  return share
    .list(FOLDER)
    .flatMap((name) => NAME_PATTERN.exec(name)?.slice(1).map(Number) ?? [])
    .sort((first, second) => first - second)
}
