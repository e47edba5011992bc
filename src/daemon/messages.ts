/**
 * What travels over the control socket (one JSON object a line) and, while the daemon starts, over its IPC channel.
 * Both ends check what they get.
 */
import * as z from 'zod'

const errorSchema = z.object({
  code: z.enum(['FAILED', 'USAGE', 'LEASE_HELD', 'INTEGRITY', 'NOT_PUBLISHED', 'BUSY', 'SHARE', 'FILE_SYSTEM']),
  message: z.string(),
  hint: z.string().optional(),
  errno: z.string().optional(),
  path: z.string().optional()
})

export const progressSchema = z.object({
  phase: z.string(),
  doneBytes: z.number(),
  totalBytes: z.number(),
  sentBytes: z.number()
})

/** What the cache holds after `isrfs warm`, and what of that had to be fetched. */
const warmedSchema = z.object({ totalBytes: z.number(), fetchedBytes: z.number() })

/** How a mount ended. */
const outcomeSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('published'),
    generation: z.number(),
    changedBytes: z.number(),
    sentBytes: z.number(),
    verified: z.boolean()
  }),
  z.object({
    kind: z.literal('branch'),
    branch: z.string(),
    why: z.string(),
    changedBytes: z.number(),
    sentBytes: z.number()
  }),
  z.object({ kind: z.literal('unchanged'), generation: z.number() }),
  z.object({ kind: z.literal('nothing-to-publish'), why: z.enum(['read-only', 'discard']) })
])

/** What a checkpoint has made. */
const checkpointedSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('published'),
    generation: z.number(),
    changedBytes: z.number(),
    sentBytes: z.number(),
    /** how long no request was answered, or writes were held */
    holdMs: z.number()
  }),
  z.object({ kind: z.literal('unchanged'), generation: z.number(), holdMs: z.number() })
])

/** One flat object; the keys are the contract of `isrfs status --json` (docs/operations.md). */
export const statusSchema = z.object({
  vm: z.string(),
  mountpoint: z.string(),
  state: z.enum(['starting', 'mounted', 'unmounting', 'committing', 'ended']),
  generation: z.number(),
  checkpoint: z.number().nullable(),
  readOnly: z.boolean(),
  discard: z.boolean(),
  client: z.string(),
  lease: z.enum(['held', 'lost', 'none']),
  leaseNumber: z.number().nullable(),
  since: z.string(),
  pid: z.number(),
  log: z.string(),
  dirtyBytes: z.number(),
  pendingBytes: z.number(),
  suspendBytes: z.number(),
  suspendSeconds: z.number().nullable(),
  presentBytes: z.number(),
  dataBytes: z.number(),
  warm: z.boolean(),
  totalBytes: z.number(),
  fetchedBytes: z.number(),
  fetchedBlocks: z.number(),
  lookasideBlocks: z.number(),
  aheadBlocks: z.number(),
  aheadUsedBlocks: z.number(),
  profileBlocks: z.number(),
  profileUsedBlocks: z.number(),
  uploadedBytes: z.number(),
  trickledBytes: z.number(),
  cacheBytes: z.number(),
  shareErrors: z.number(),
  shareAnswers: z.boolean(),
  damagedBlocks: z.number(),
  phase: z.string(),
  doneBytes: z.number(),
  toDoBytes: z.number(),
  openHandles: z.number(),
  transport: z.enum(['direct', 'binding']),
  threadReads: z.number(),
  threadWrites: z.number(),
  residentBytes: z.number(),
  waiting: z.array(z.string())
})

/** `columns` are SAMPLE_COLUMNS of daemon/samples.ts. */
const samplesSchema = z.object({
  columns: z.array(z.string()),
  intervalMs: z.number(),
  /** number of the first row; rows are numbered from 0 since the mount began, and the oldest ones are dropped */
  first: z.number(),
  rows: z.array(z.array(z.number()))
})

const latencySchema = z.object({ operation: z.string(), counts: z.array(z.number()) })

const fileSchema = z.object({
  inode: z.number(),
  path: z.string(),
  sizeBytes: z.number(),
  /** of blocks with bytes, in the generation */
  dataBytes: z.number(),
  dirtyBytes: z.number()
})

/** What those who watch a mount get each time they look: `isrfs top` and `isrfs dashboard`. */
export const viewSchema = z.object({
  status: statusSchema,
  readBytes: z.number(),
  /** of these, those that were here when they were asked for */
  hitBytes: z.number(),
  samples: samplesSchema,
  latency: z.object({ endsSeconds: z.array(z.number()), kinds: z.array(latencySchema) }),
  /** regular files, largest first; the smallest of many are left out */
  files: z.array(fileSchema)
})

/** Of each state one byte a cell, base64 (image/block-cells.ts). */
export const cellsSchema = z.object({
  firstBlock: z.number(),
  blocks: z.number(),
  cells: z.number(),
  states: z.object({
    dirty: z.string(),
    inFlight: z.string(),
    foretold: z.string(),
    present: z.string(),
    sent: z.string(),
    empty: z.string()
  })
})

const CELLS_MAX = 65_536

/** How a mount shall end. */
export interface UnmountOptions {
  /** read everything that was sent back from the share */
  readonly verify: boolean
  /** publish lock directories that a VMM has left, too */
  readonly keepLocks?: boolean | undefined
}

export const requestSchema = z.discriminatedUnion('command', [
  z.object({ command: z.literal('status') }),
  z.object({ command: z.literal('metrics') }),
  /** `since`: number of the first sample that is wanted */
  z.object({ command: z.literal('view'), since: z.number().int().nonnegative() }),
  z.object({
    command: z.literal('cells'),
    inode: z.number().int().positive(),
    firstBlock: z.number().int().nonnegative(),
    blocks: z.number().int().positive(),
    cells: z.number().int().positive().max(CELLS_MAX)
  }),
  z.object({ command: z.literal('warm') }),
  z.object({ command: z.literal('checkpoint') }),
  z.object({ command: z.literal('unmount'), verify: z.boolean(), keepLocks: z.boolean().optional() })
])

export const replySchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('notice'), text: z.string() }),
  z.object({ kind: z.literal('progress'), progress: progressSchema }),
  z.object({ kind: z.literal('status'), status: statusSchema }),
  z.object({ kind: z.literal('metrics'), text: z.string() }),
  z.object({ kind: z.literal('view'), view: viewSchema }),
  z.object({ kind: z.literal('cells'), cells: cellsSchema }),
  z.object({ kind: z.literal('ended'), outcome: outcomeSchema }),
  z.object({ kind: z.literal('warmed'), warmed: warmedSchema }),
  z.object({ kind: z.literal('checkpointed'), checkpointed: checkpointedSchema }),
  z.object({ kind: z.literal('failed'), error: errorSchema })
])

export const startMessageSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('notice'), text: z.string() }),
  z.object({ kind: z.literal('ready'), generation: z.number(), files: z.number(), totalBytes: z.number() }),
  z.object({ kind: z.literal('failed'), error: errorSchema })
])

export type Progress = Readonly<z.infer<typeof progressSchema>>
export type Warmed = Readonly<z.infer<typeof warmedSchema>>
export type Checkpointed = Readonly<z.infer<typeof checkpointedSchema>>
export type Outcome = Readonly<z.infer<typeof outcomeSchema>>
export type Status = Readonly<z.infer<typeof statusSchema>>
export type View = Readonly<z.infer<typeof viewSchema>>
export type Cells = Readonly<z.infer<typeof cellsSchema>>
/** What part of which file, in how many cells. */
export type CellsWanted = Omit<Extract<ControlRequest, { command: 'cells' }>, 'command'>
export type ControlRequest = z.infer<typeof requestSchema>
export type ControlReply = z.infer<typeof replySchema>
export type StartMessage = z.infer<typeof startMessageSchema>

export type MessageError = z.infer<typeof errorSchema>
