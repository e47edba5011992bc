/** A small VM directory as VMware leaves it, with a sparse disk whose bytes are known. */
import fs from 'node:fs'
import path from 'node:path'
import type { Random } from './random.js'

export interface SampleOptions {
  /** apparent size of the disk */
  readonly diskBytes: number
  /** how many pieces of random data lie in it */
  readonly pieces: number
}

export function makeSampleVm(directory: string, random: Random, options: SampleOptions): void {
  fs.mkdirSync(path.join(directory, 'caches', 'GuestAppsCache'), { recursive: true })
  const disk = fs.openSync(path.join(directory, 'testvm-flat.vmdk'), 'w')
  fs.ftruncateSync(disk, options.diskBytes)
  for (let piece = 0; piece < options.pieces; piece++) {
    const bytes = random.bytes(1 + random.below(400_000))
    fs.writeSync(disk, bytes, 0, bytes.length, random.below(options.diskBytes - bytes.length))
  }
  fs.closeSync(disk)
  fs.writeFileSync(path.join(directory, 'testvm.vmdk'), '# Disk DescriptorFile\nversion=1\n')
  fs.writeFileSync(path.join(directory, 'testvm.vmx'), 'displayName = "testvm"\nmemsize = "256"\n', { mode: 0o755 })
  fs.writeFileSync(path.join(directory, 'testvm.nvram'), random.bytes(8684))
  fs.writeFileSync(path.join(directory, 'vmware.log'), 'a line of a log\n'.repeat(2000))
  fs.writeFileSync(path.join(directory, 'testvm.vmsd'), '')
  fs.writeFileSync(path.join(directory, 'caches', 'GuestAppsCache', 'data'), random.bytes(100_000))
  fs.symlinkSync('testvm.vmdk', path.join(directory, 'current.vmdk'))
  fs.utimesSync(path.join(directory, 'testvm.vmx'), 1_000_000_000.123, 1_100_000_000.456)
}
