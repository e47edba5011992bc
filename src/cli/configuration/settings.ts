/**
 * What can be configured: the one list behind the options' defaults, the environment, the configuration files, `isrfs config`
 * and docs/configuration.md. A setting is an option of one or more commands that keeps its meaning for every VM.
 */

/** How a value is written, and checked. */
export type Kind = 'path' | 'size' | 'duration' | 'count' | 'port' | 'boolean' | 'text' | readonly string[]

export interface Setting {
  /** as in a configuration file: the table, a dot, the option; options of several commands have no table */
  readonly name: string
  readonly kind: Kind
  /** as it would be written in a configuration file; undefined: none, or one that depends on the user */
  readonly default: string | number | boolean | undefined
  /** instead of a default that depends */
  readonly otherwise?: string
  /** the commands that it is for; undefined: all but those of UNCONFIGURED_COMMANDS */
  readonly commands?: readonly string[]
  readonly description: string
}

/**
 * These read no configuration at all: nothing that is wrong in a file keeps anybody from looking at a mount, or from
 * suspending it.
 */
export const UNCONFIGURED_COMMANDS: readonly string[] = [
  'unmount',
  'status',
  'export',
  'list',
  'log',
  'diff',
  'metrics',
  'completion',
  'manual',
  'help'
]

const MOUNTING = ['mount', 'warm']

export const SETTINGS: readonly Setting[] = [
  {
    name: 'client-dir',
    kind: 'path',
    default: undefined,
    otherwise: '~/.local/share/isrfs, or /var/lib/isrfs as root',
    description: 'directory of this client: identity, sessions, cache, logs'
  },
  {
    name: 'cache-dir',
    kind: 'path',
    default: undefined,
    otherwise: 'cache in the client directory',
    description: 'directory of the disposable part, the cache'
  },
  {
    name: 'cache-size',
    kind: 'size',
    default: '20G',
    commands: MOUNTING,
    description: 'how much of the disk the cache of one mount may take'
  },
  {
    name: 'mount.allow-other',
    kind: 'boolean',
    default: false,
    commands: ['mount'],
    description: 'let other users in, as their permissions allow (VMware runs as root)'
  },
  {
    name: 'mount.share-timeout',
    kind: 'duration',
    default: undefined,
    otherwise: 'they wait',
    commands: ['mount'],
    description: 'when reads of files that nobody writes or maps give up waiting for the share'
  },
  {
    name: 'mount.trickle',
    kind: 'boolean',
    default: true,
    commands: ['mount'],
    description: 'send changes that nobody touches for a while before the suspend'
  },
  {
    name: 'mount.writeback',
    kind: 'boolean',
    default: true,
    commands: ['mount'],
    description: "the kernel's writeback cache; without it each write(2) goes to the daemon before it returns"
  },
  {
    name: 'mount.transport',
    kind: ['auto', 'direct', 'binding'],
    default: 'auto',
    commands: ['mount'],
    description: 'how to speak to the kernel'
  },
  {
    name: 'mount.log-size',
    kind: 'size',
    default: '8M',
    commands: ['mount'],
    description: 'how large a log file of a mount grows before the next one begins'
  },
  {
    name: 'mount.log-files',
    kind: 'count',
    default: 4,
    commands: ['mount'],
    description: 'how many log files of a mount are kept'
  },
  {
    name: 'mount.metrics-port',
    kind: 'port',
    default: undefined,
    otherwise: 'none',
    commands: ['mount'],
    description: 'where metrics for Prometheus are served on the loopback address (docs/metrics.md)'
  },
  {
    name: 'dashboard.port',
    kind: 'port',
    default: 7717,
    commands: ['dashboard'],
    description: 'port of the loopback address that the dashboard is served on; 0 takes a free one'
  },
  {
    name: 'prune.keep',
    kind: 'count',
    default: 10,
    commands: ['prune'],
    description: 'how many of the newest generations stay'
  },
  {
    name: 'prune.grace',
    kind: 'duration',
    default: '24h',
    commands: ['prune'],
    description: 'how long unused chunks are kept, by the clock of the server'
  },
  {
    name: 'qemu.accel',
    kind: 'text',
    default: 'kvm:tcg',
    commands: ['qemu'],
    description: 'accelerators that QEMU shall try'
  }
]

/** "mount.share-timeout" -> "ISRFS_MOUNT_SHARE_TIMEOUT" */
export function environmentName({ name }: Setting): string {
  return `ISRFS_${name.replace(/[.-]/g, '_').toUpperCase()}`
}

/** "mount.share-timeout" -> "--share-timeout"; of a boolean that is on, what turns it off */
export function optionName(setting: Setting): string {
  return `--${setting.default === true ? 'no-' : ''}${ownName(setting)}`
}

/** "mount.share-timeout" -> "shareTimeout", as commander has it */
export function attributeName(setting: Setting): string {
  return ownName(setting).replace(/-(.)/g, (_match, letter: string) => letter.toUpperCase())
}

export function appliesTo({ commands }: Setting, command: string): boolean {
  return commands?.includes(command) ?? !UNCONFIGURED_COMMANDS.includes(command)
}

/** The default of a setting that has one, as an option's text. */
export function defaultOf(name: string): string {
  const value = SETTINGS.find((setting) => setting.name === name)?.default
  if (value === undefined) throw new TypeError(`${name} is no setting with a default`)
  return String(value)
}

function ownName({ name }: Setting): string {
  return name.slice(name.indexOf('.') + 1)
}
