/**
 * The file system calls that share/ makes, as one small interface, so that a fault-injecting file system can stand in
 * its place. Synchronous on purpose: they run in worker threads or in one-shot commands, never on the thread that
 * serves FUSE (a dead server then blocks a worker and nobody else).
 */
import fs from 'node:fs'

export type ShareFileSystem = Pick<
  typeof fs,
  | 'openSync'
  | 'readSync'
  | 'writeSync'
  | 'fsyncSync'
  | 'closeSync'
  | 'fstatSync'
  | 'lstatSync'
  | 'statfsSync'
  | 'mkdirSync'
  | 'readdirSync'
  | 'renameSync'
  | 'rmSync'
  | 'utimesSync'
>

export const nodeFileSystem: ShareFileSystem = fs
