/** fio: random reads and writes by somebody who has done it before. */
import path from 'node:path'
import { FILE } from './files.js'
import type { Place } from './place.js'

export interface FioDirection {
  readonly iops: number
  readonly total_ios: number
  /** milliseconds */
  readonly runtime: number
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> }
}

export interface FioJob {
  readonly read: FioDirection
  readonly write: FioDirection
}

export const ONE_AT_A_TIME = ['--ioengine=psync']
export const DIRECT_ONE_AT_A_TIME = ['--ioengine=psync', '--direct=1']

export function directDepth(depth: number): string[] {
  return ['--ioengine=libaio', `--iodepth=${depth}`, '--direct=1']
}

/**
 * One job of 4 KiB requests on the file of a directory. It forgets the file's pages before it begins, as it is seen there.
 * It ends when each page was asked for once, if it is not told when.
 */
export async function fio(place: Place, directory: string, rw: string, args: readonly string[]): Promise<FioJob> {
  const output = await place.run('fio', [
    '--name=job',
    '--output-format=json',
    `--filename=${path.join(directory, FILE)}`,
    `--rw=${rw}`,
    '--bs=4k',
    '--allow_file_create=0',
    '--percentile_list=50:99:99.9',
    ...args
  ])
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: FioJob[] }
  const [job] = jobs
  if (job === undefined) throw new Error(`fio told of no job: ${output.slice(0, 200)}`)
  return job
}

export function microsecondsAt(percentile: number, { clat_ns: { percentile: told = {} } }: FioDirection): number {
  return (told[percentile.toFixed(6)] ?? NaN) / 1000
}
