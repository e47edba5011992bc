/**
 * What is worth a line in the log. The names are a contract (docs/logs.md is written from this list): scripts and alerts
 * select by `event`, never by `msg`.
 */
export interface EventDescription {
  readonly what: string
  /** fields beside those of every line */
  readonly fields: string
}

export const EVENTS = {
  starting: { what: 'a daemon begins to mount', fields: '`request`' },
  mounted: { what: 'the mount answers', fields: '`generation`, `files`, `transport`' },
  failed: { what: 'it could not be mounted, or was not published in the end', fields: '`why`' },
  notice: { what: 'what the person who mounts is told, too', fields: '' },
  profile: {
    what: 'what an earlier mount had read first was fetched ahead',
    fields: '`runs`, `fetchedBlocks`, `usedBlocks`'
  },
  'no-profile': { what: 'the profile could not be read or written; costs time only', fields: '`why`' },
  'share-silent': { what: 'the share does not answer any more', fields: '`why`' },
  'share-answers': { what: 'the share answers again', fields: '`silentSeconds`' },
  'share-trouble': { what: 'something about this mount could not be noted on the share', fields: '`why`' },
  'lease-lost': { what: 'somebody else has taken the lease: nothing will be published', fields: '`lease`' },
  damage: { what: 'a block is damaged: its readers get EIO', fields: '`damage`' },
  warning: {
    what: 'something that the mount lives with: a full disk, a failed read of the share',
    fields: '`suppressed`'
  },
  'request-failed': {
    what: 'a request of the kernel failed in an unforeseen way',
    fields: '`operation`, `why`, `suppressed`'
  },
  'metrics-port': { what: 'metrics are served on this port, or (a warning) could not be', fields: '`port`, `why`' },
  checkpoint: {
    what: 'a generation was published, and the mount goes on',
    fields: '`generation`, `changedBytes`, `sentBytes`, `holdMs`'
  },
  'no-checkpoint': { what: 'a checkpoint was given up, and the mount goes on', fields: '`why`' },
  'asked-to-end': { what: 'the daemon got a signal', fields: '`signal`' },
  'not-unmounted': { what: 'an unmount was refused, and the mount goes on', fields: '`why`' },
  unmounted: { what: 'it was taken out of the kernel', fields: '`result`' },
  committing: { what: 'the kernel has ended the mount; what was changed is being published', fields: '`dirtyBytes`' },
  ended: { what: 'the mount has ended as it should', fields: '`outcome`, `seconds`' },
  'not-published': { what: 'the mount has ended without publishing; the session is kept', fields: '`why`' },
  signal: { what: 'a signal that changes nothing', fields: '`signal`' },
  defect: { what: 'a defect ends the daemon; what was accepted is in the session', fields: '`why`' }
} as const satisfies Readonly<Record<string, EventDescription>>

export type EventName = keyof typeof EVENTS

/** The fields of a line: `log.info(event('mounted', { generation }), 'mounted')`. */
export function event(name: EventName, fields: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return { event: name, ...fields }
}
