/**
 * What --json prints, command by command: the contract behind docs/json.md. Fields are added in later versions, never renamed
 * or given another meaning; test/cli/json.test.ts compares real output with this.
 */
import * as z from 'zod'
import { statusSchema } from '../daemon/messages.js'

const vm = z.string().describe('path of the VM on the share')
const count = (text: string) => z.number().int().nonnegative().describe(text)
const time = (text: string) => z.string().describe(`${text}, ISO 8601`)

const warmed = z.strictObject({
  totalBytes: count('blocks that the cache holds now'),
  fetchedBytes: count('encoded bytes that were fetched for it')
})

const changed = count('in blocks that differ from the generation before')
const sent = count('encoded bytes that went to the share')

const ends = [
  z.strictObject({
    vm,
    kind: z.literal('published'),
    generation: count('its number'),
    changedBytes: changed,
    sentBytes: sent,
    verified: z.boolean().describe('whether everything was read back')
  }),
  z.strictObject({ vm, kind: z.literal('unchanged'), generation: count('still the newest') }),
  z.strictObject({
    vm,
    kind: z.literal('nothing-to-publish'),
    why: z.enum(['read-only', 'discard']).describe('how it was mounted')
  })
] as const

const finding = z.strictObject({
  severity: z.enum(['error', 'warning', 'note']),
  file: z.string().describe('what it is about: a file of the VM, a directory, a program'),
  what: z.string().describe('what is so'),
  why: z.string().describe('why it matters'),
  change: z.string().describe('a line for the file, or what to do')
})

const bad = z.strictObject({
  path: z.string().describe('of the object on the share'),
  why: z.string().describe('what is wrong with it'),
  suffers: z
    .array(
      z.strictObject({
        generation: z.string().describe('number, or name of a branch'),
        path: z.string().describe('of the file in it'),
        from: z.number().describe('first byte'),
        to: z.number().describe('byte after the last')
      })
    )
    .describe('files and ranges of generations that cannot be read')
})

const listed = z.union([
  z.strictObject({
    name: z.string().describe('its directory on the share'),
    path: vm,
    generation: count('the newest'),
    created: time('when it was published'),
    host: z.string().describe('by which host'),
    totalBytes: count('sizes of all files'),
    leaseHeldBy: z.string().nullable().describe('host that has it mounted for writing; null: free'),
    leftOver: z.boolean().describe('whether changes of it were left behind on this client (isrfs status)')
  }),
  z.strictObject({
    name: z.string().describe('its directory on the share'),
    path: vm,
    damage: z.string().describe('why it cannot be read')
  })
])

const leftOver = z.strictObject({
  vm: z.string().nullable().describe('path of the VM on the share; null: not known'),
  vmId: z.string().describe('id of the VM'),
  directory: z.string().describe('where the session is on this client'),
  generation: z.number().nullable().describe('the one that it is based on'),
  since: z.string().nullable().describe('when it began, ISO 8601'),
  changedBytes: z
    .number()
    .nullable()
    .describe('disk space of the changes here, about; null: too many files to look at'),
  damage: z.string().nullable().describe('why it cannot be read; null: it can')
})

const lease = z.union([
  z.strictObject({
    vm,
    state: z.literal('free').describe('nobody has it mounted for writing'),
    number: z.number().nullable().describe('of the last lease; null: there was none'),
    released: time('when it ended').nullable()
  }),
  z.strictObject({
    vm,
    state: z.enum(['held', 'broken']).describe('broken: by this command'),
    number: z.number().describe('of the lease'),
    taken: time('when it was taken'),
    host: z.string().describe('of its holder'),
    client: z.string().describe('id of the client that holds it'),
    pid: z.number().describe('process that serves FUSE there'),
    mountpoint: z.string().describe('where it is mounted there')
  })
])

const named = {
  generation: count('its number; of a branch the number that it would have had'),
  branch: z.string().optional().describe('its name, only of branches')
}

const logged = z.union([
  z.strictObject({
    ...named,
    digest: z.string().describe('SHA-256 of the manifest'),
    parent: z.number().nullable().describe('the generation that it is based on; null: none'),
    session: z.string().describe('id of the session that it has published'),
    created: time('when it was published'),
    host: z.string().describe('by which host'),
    client: z.string().describe('id of the client that has published it'),
    changedBytes: changed,
    sentBytes: sent,
    files: count('how many regular files'),
    totalBytes: count('sizes of all files'),
    restores: z.string().optional().describe('only of rollbacks: what they have the content of'),
    checkpoint: z
      .strictObject({ session: z.string(), sequence: z.number() })
      .optional()
      .describe('only of checkpoints: the session that went on'),
    compaction: z
      .literal(true)
      .optional()
      .describe('only of what prune or a repair has made: the content of its parent in other chunks')
  }),
  z.strictObject({ ...named, pruned: time('when it was pruned') }),
  z.strictObject({ ...named, damage: z.string().describe('why it cannot be read') })
])

/** By command; those with two forms have both. */
export const JSON_SCHEMAS = {
  import: z.strictObject({
    vm,
    generation: z.number().nullable().describe('the new one; null: nothing differs, nothing was published'),
    files: count('how many regular files'),
    totalBytes: count('sizes of all files'),
    changedBytes: changed,
    sentBytes: sent
  }),
  export: z.strictObject({
    vm,
    directory: z.string().describe('where the files are now'),
    generation: count('the one that was written'),
    files: count('how many regular files'),
    totalBytes: count('sizes of all files')
  }),
  mount: z.strictObject({
    vm,
    mountpoint: z.string(),
    generation: z.number(),
    files: count('files, directories and links'),
    totalBytes: count('sizes of all files'),
    pid: z.number().describe('of the daemon'),
    log: z.string()
  }),
  unmount: z.union(ends),
  checkpoint: z.union([
    z.strictObject({
      vm,
      kind: z.literal('published'),
      generation: count('its number'),
      changedBytes: count('in blocks that differ from the generation that was mounted'),
      sentBytes: sent,
      holdMs: z.number().describe('how long requests were held')
    }),
    z.strictObject({
      vm,
      kind: z.literal('unchanged'),
      generation: count('the one that has what the mount shows'),
      holdMs: z.number().describe('how long requests were held')
    })
  ]),
  'status <mountpoint>': statusSchema,
  status: z.strictObject({
    mounts: z.array(statusSchema).describe('each as of `status <mountpoint>`'),
    leftOver: z.array(leftOver).describe('sessions of this client that are in no generation and that nobody uses')
  }),
  warm: warmed,
  recover: z.union([
    ...ends,
    z.strictObject({
      vm,
      kind: z.literal('branch'),
      branch: z.string().describe('its name'),
      why: z.string().describe('why it could not be the next generation'),
      changedBytes: changed,
      sentBytes: sent
    }),
    z.strictObject({
      vm,
      kind: z.literal('discarded'),
      created: time('when the session began, or "unknown" for a damaged one'),
      generation: z.number().nullable().describe('that it was based on; null: unknown'),
      changedBytes: z.number().nullable().describe('disk space of the changes; null: unknown'),
      changedFiles: z.number().nullable().describe('files that were new or had other content; null: unknown')
    }),
    z.strictObject({
      vm,
      kind: z.literal('salvaged'),
      branch: z.string().nullable().describe('its name; null: nothing that is intact differs from the base'),
      kept: z.string().describe('where the damaged session is now'),
      changedBytes: changed,
      sentBytes: sent,
      lost: z.array(z.string()).describe('what is not in the branch, or may be wrong in it')
    }),
    z.strictObject({ vm, kind: z.literal('nothing').describe('nothing was left behind') })
  ]),
  list: z.array(listed),
  log: z.array(logged),
  diff: z.array(
    z.strictObject({
      path: z.string().describe('of a file, directory or link'),
      change: z.enum(['added', 'removed', 'changed', 'attributes']),
      changedBytes: count('in whole blocks of 128 KiB')
    })
  ),
  rollback: z.strictObject({
    vm,
    restores: z.string().describe('generation or branch whose content it has'),
    generation: z.number().nullable().describe('the new one; null: it was the newest already')
  }),
  check: z.strictObject({
    bad: z.array(bad).describe('damaged or missing objects'),
    generations: count('that were looked at'),
    blocks: count('that they need'),
    readBytes: count('that were read and verified of them')
  }),
  'check --cache': z.strictObject({
    blocks: count('that were compared with their digests'),
    bad: z.array(z.string()).describe('dropped: region file and block'),
    inUse: z.array(z.string()).describe('not looked at: mounts use them')
  }),
  prune: z.strictObject({
    done: z.boolean().describe('false without --yes: it is what would go'),
    removed: z.array(z.string()).describe('generations and branches'),
    kept: z
      .array(
        z.strictObject({ name: z.string().describe('generation or branch'), why: z.string().describe('what needs it') })
      )
      .describe('although old'),
    trashedChunks: count('that nothing needs any more: they wait for the end of the grace'),
    trashedBytes: count('in them'),
    deletedChunks: count('whose grace has ended'),
    deletedBytes: count('in them'),
    waitingChunks: count('unused, and still within the grace or held back'),
    heldBack: z
      .array(
        z.strictObject({
          path: z.string().describe('of a pin on the share'),
          why: z.string().describe('who holds it, and how it ends')
        })
      )
      .describe('while there is one, no chunk is removed and nothing is compacted'),
    compaction: z
      .strictObject({
        generation: z.number().nullable().describe('that has the content of the newest one now; null: none was made'),
        chunks: count('that were mostly garbage'),
        garbageBytes: count('in them; they can go when generations that use them are pruned'),
        usedBytes: count('in them, to be copied'),
        why: z.string().nullable().describe('why none was made although there is enough garbage')
      })
      .nullable()
      .describe('null: too little garbage')
  }),
  lease,
  doctor: z.array(finding),
  config: z.strictObject({
    files: z
      .array(z.strictObject({ path: z.string(), exists: z.boolean() }))
      .describe('configuration files, the one that counts more first'),
    settings: z.array(
      z.strictObject({
        name: z.string().describe('as in a configuration file'),
        value: z.union([z.string(), z.number(), z.boolean()]).nullable().describe('null: not set'),
        source: z.enum(['option', 'environment', 'user', 'system', 'default']),
        from: z.string().describe('the option, the variable, or file and line')
      })
    )
  })
} as const satisfies Readonly<Record<string, z.ZodType>>

/** What fields of `status --json` mean. */
export const STATUS_FIELDS: Readonly<Record<string, string>> = {
  vm: 'path of the VM on the share',
  mountpoint: 'where it is mounted',
  state: 'how far the life of the mount is',
  generation: 'the one that is shown, and that changes are based on',
  checkpoint: 'the newest generation that this mount has published while it goes on; null: none',
  readOnly: 'every change is refused',
  discard: 'changes go away with the mount',
  client: 'id of this client',
  lease: 'whether it may publish; none: it never may',
  leaseNumber: 'number of the lease; null: none',
  since: 'when this mount began, ISO 8601',
  pid: 'the process that serves FUSE',
  log: 'its log file',
  dirtyBytes: 'changed since the generation, in whole 4 KiB pages',
  pendingBytes: 'of these not yet synced, about',
  suspendBytes:
    'what a suspend would send now, about: encoded bytes of changed blocks that the share does not have yet',
  suspendSeconds: 'how long that would take, about; null: too little was fetched to know the speed of the share',
  presentBytes: 'readable without the share, about: holes need no bytes and do not count',
  dataBytes: 'in blocks of the generation that have bytes: all that isrfs warm would bring',
  warm: 'everything is here, and the share may go away: isrfs warm has brought it, and nothing was dropped since',
  totalBytes: 'sizes of all files',
  fetchedBytes: 'encoded bytes read from chunks by this mount, maps included',
  fetchedBlocks: 'blocks that were fetched',
  lookasideBlocks: 'blocks that were copied from another cache of this client instead',
  aheadBlocks: 'blocks fetched before anybody asked (readahead, tables of disks, profile, warm)',
  aheadUsedBlocks: 'of these, those that were read since',
  profileBlocks: 'of the blocks fetched ahead, those that an earlier mount had read first',
  profileUsedBlocks: 'of these, those that were read again',
  uploadedBytes: 'sent to the share by this mount',
  trickledBytes: 'of these before the suspend, because nobody touched them for a while',
  cacheBytes: 'cache on disk',
  shareErrors: 'tasks that the share refused',
  shareAnswers: 'whether it answers now',
  damagedBlocks: 'reads that met a damaged block',
  phase: 'of a commit; empty: none',
  doneBytes: 'how far the commit is',
  toDoBytes: 'of how much',
  transport: 'which way to the kernel serves it; an old kernel may have made a direct mount one of the binding',
  threadReads: 'READ requests that the threads of the direct transport have answered by themselves',
  threadWrites: 'WRITE requests that they have answered',
  openHandles: 'open files and directories',
  residentBytes: 'memory of the daemon',
  waiting: 'what waits, and since when, as text'
}
