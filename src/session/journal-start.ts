/** Which journal a recovered session goes on with, and the removal of those that a snapshot has replaced. */
import fs from 'node:fs'
import path from 'node:path'
import type { Disk } from './disk.js'
import { namesIn, replaceFileDurably, syncDirectory } from './durable-file.js'
import type { SessionFile } from './identity.js'
import { Journal, journalName, journalNumbers } from './journal.js'
import { type Recovered, snapshotName } from './recovery.js'
import { encodeSnapshot } from './snapshot.js'

export interface StartedJournal {
  readonly journal: Journal
  /** journals that count too, and of which nobody knows whether they are on the disk: a snapshot was interrupted */
  readonly older: readonly Journal[]
}

/** In the same boot: the last journal goes on where its good frames end. */
export function continueJournal(
  directory: string,
  file: SessionFile,
  recovered: Recovered,
  disk: Disk
): StartedJournal {
  const { last, position } = recovered
  if (last === undefined)
    return { journal: Journal.create(directory, recovered.nextNumber, file.salt, position, disk), older: [] }
  const open = (number: number, bytes?: number): Journal => {
    const descriptor = fs.openSync(path.join(directory, journalName(number)), 'r+')
    if (bytes !== undefined) fs.ftruncateSync(descriptor, bytes)
    return new Journal({ number, descriptor, salt: file.salt, disk, bytes: bytes ?? 0, position })
  }
  const older: Journal[] = []
  for (const number of journalNumbers(directory)) {
    if (number > last.number)
      fs.rmSync(path.join(directory, journalName(number))) // nothing of it counts
    else if (number < last.number) older.push(open(number))
  }
  const journal = open(last.number, last.bytes)
  if (last.isCurrent) return { journal, older }
  return { journal: Journal.create(directory, last.number + 1, file.salt, position, disk), older: [...older, journal] }
}

/** After a power cut: what was found to count becomes a snapshot, so that it is never asked again. */
export function restartJournal(directory: string, file: SessionFile, recovered: Recovered, disk: Disk): StartedJournal {
  const number = recovered.nextNumber
  const journal = Journal.create(directory, number, file.salt, recovered.position, disk)
  fs.fsyncSync(journal.descriptor)
  syncDirectory(directory) // a snapshot without its journal is damage
  replaceFileDurably(path.join(directory, snapshotName(number)), encodeSnapshot(recovered.namespace, file.salt))
  removeBefore(directory, number)
  return { journal, older: [] }
}

/** Journals and snapshots below a number. */
export function removeBefore(directory: string, number: number): void {
  for (const name of namesIn(directory)) {
    const match = /^(?:journal|snapshot)-(\d+)$/.exec(name)
    if (match !== null && Number(match[1]) < number) fs.rmSync(path.join(directory, name), { force: true })
  }
}
