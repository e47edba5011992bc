/**
 * Pins: a mount without a lease says which generation it reads, so that prune leaves it alone. Its beat shows that
 * it lives; a share that cannot be written needs no pin, since nobody prunes there from here.
 */
import { randomBytes } from 'node:crypto'
import { toShareJson } from './json.js'
import type { LeaseHolder } from './lease-record.js'
import type { Share } from './share.js'

export interface Pin {
  readonly name: string
}

export function createPin(share: Share, holder: LeaseHolder, generation: number): Pin {
  const name = `pins/${holder.client}-${randomBytes(4).toString('hex')}`
  share.createDirectory(name, new Map([['pin.json', pinBytes(holder, generation, new Date().toISOString())]]))
  return { name }
}

export function pinBytes(holder: LeaseHolder, generation: number, taken: string): Buffer {
  return toShareJson({ format: 'isrfs-pin', version: 1, holder, generation, taken })
}

export function beatPin(share: Share, pin: Pin, beats: number): void {
  share.write(`${pin.name}/beat.json`, toShareJson({ count: beats, time: new Date().toISOString() }))
}

export function removePin(share: Share, pin: Pin): void {
  share.removeQuietly(pin.name)
}
