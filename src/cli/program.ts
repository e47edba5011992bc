/**
 * The command line as commander sees it: words, options and help. What they do is in the command-*.ts
 * files, loaded when they are needed: `isrfs status` has no use for the FUSE binding. */
import fs from 'node:fs'
import path from 'node:path'
import { styleText } from 'node:util'
import { Argument, Command, Option } from 'commander'
import type { ConfigOptions } from './command-config.js'
import type { PruneCommandOptions } from './command-history.js'
import type { LogsOptions } from './command-logs.js'
import type { MountOptions } from './command-mount.js'
import type { DashboardOptions } from './command-dashboard.js'
import type { QemuOptions } from './command-qemu.js'
import type { TopOptions } from './command-top.js'
import { completionScript, type Shell, SHELLS } from './completion.js'
import { defaultOf } from './configuration/settings.js'
import { examplesText } from './examples.js'
import { manPages, optionText } from './manual.js'
import type { GlobalOptions } from './options.js'
import { result } from './output.js'

const EXIT_CODE_HELP = `
Exit codes: 0 done; 1 failed; 2 usage; 3 lease held by another; 4 integrity failure; 5 not published, changes are
safe on this client; 6 mountpoint busy.`

export function buildProgram(version: string): Command {
  const program = new Command('isrfs')
    .description('Resume a virtual machine from a share through a mount, and suspend it by unmounting.')
    .version(version)
    .option('--client-dir <dir>', 'directory of this client: identity, sessions, cache, logs')
    .option('--cache-dir <dir>', 'directory of the disposable part, the cache (default: in the client directory)')
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false, optionDescription: optionText, styleTitle })
    .addHelpText('after', EXIT_CODE_HELP)
    .showSuggestionAfterError(true)
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'isrfs: ')) })
    .exitOverride()
    .hook('preAction', async (_program, command) =>
      (await import('./configuration/resolve.js')).applyConfiguration(command)
    )
  addCopies(program)
  addMountLife(program)
  addShareViews(program)
  addVmms(program)
  addConfiguration(program)
  addCompletion(program)
  addManual(program)
  for (const command of program.commands) {
    command
      .copyInheritedSettings(program)
      .exitOverride()
      .addHelpText('after', examplesText(command.name()))
      .addHelpText('after', EXIT_CODE_HELP)
  }
  return program
}

function addCopies(program: Command): void {
  program
    .command('import')
    .description('publish a plain directory as a VM, or as the next generation of one (copyout)')
    .argument('<vm-dir>', 'directory with the files of the VM')
    .argument('<vm>', 'where the VM shall be on the share, such as /export/testvm')
    .option('--update', 'publish as the next generation of a VM that exists; only changed blocks travel')
    .option('--join-pieces', 'see pieces name.000, name.001, ... as one file')
    .option('--json', 'one JSON object')
    .action(async (source: string, vm: string, options: object, command: Command) =>
      (await import('./command-copy.js')).importCommand(source, vm, withGlobals(command, options))
    )
  program
    .command('export')
    .description('write a generation out as plain files (copyin)')
    .argument('<vm>', 'the VM on the share')
    .argument('<dir>', 'directory for the files; it is created')
    .option('--generation <n>', 'which generation (default: the newest)')
    .option('--json', 'one JSON object')
    .action(async (vm: string, directory: string, options: object) =>
      (await import('./command-copy.js')).exportCommand(vm, directory, options)
    )
}

function addMountLife(program: Command): void {
  program
    .command('mount')
    .description('resume: show the VM as files; returns when the mount answers, a daemon stays')
    .argument('<vm>', 'the VM on the share')
    .argument('<mountpoint>', 'an empty directory')
    .option('--read-only', 'take no lease; every change is refused')
    .option('--generation <n>', 'an older generation, or a branch (implies --read-only)')
    .option('--discard', 'writable, without a lease; changes are never published')
    .option('--foreground', 'stay in the foreground until the mount has ended')
    .option('--allow-other', 'let other users in, as their permissions allow (VMware runs as root)')
    .option('--accept-rollback', 'resume although the share shows less than this client has seen (a restored backup)')
    .option('--cache-size <size>', 'how much of the disk the cache may take, such as 20G', defaultOf('cache-size'))
    .option(
      '--share-timeout <duration>',
      'reads of files that nobody writes or maps fail after it (default: they wait)'
    )
    .option('--no-writeback', 'hand each write(2) to the daemon before it returns')
    .option('--trickle', 'send changes that nobody touches for a while before the suspend (default)', true)
    .option('--no-trickle', 'send everything at the suspend')
    .addOption(
      new Option('--transport <name>', 'how to speak to the kernel: auto, direct or binding').default(
        defaultOf('mount.transport')
      )
    )
    .option('--metrics-port <port>', 'serve metrics for Prometheus on this port of the loopback address')
    .option('--log-size <size>', 'how large a log file grows before the next one begins', defaultOf('mount.log-size'))
    .option('--log-files <n>', 'how many log files are kept', defaultOf('mount.log-files'))
    .option('--json', 'one JSON object')
    .action(async (vm: string, mountpoint: string, options: MountOptions, command: Command) =>
      (await import('./command-mount.js')).mountCommand(vm, mountpoint, withGlobals(command, options))
    )
  program
    .command('unmount')
    .alias('umount')
    .description('suspend: returns 0 only when the new generation is durable on the share')
    .argument('<mountpoint>')
    .option('--verify', 'read everything that was sent back from the share')
    .option('--keep-locks', 'publish the lock directories that VMware has left (*.lck), too')
    .option('--json', 'one JSON object')
    .action(async (mountpoint: string, options: object) =>
      (await import('./command-unmount.js')).unmountCommand(mountpoint, options)
    )
  program
    .command('checkpoint')
    .description('publish what the mount shows now as a generation, while it goes on (crash-consistent)')
    .argument('<mountpoint>')
    .option('--json', 'one JSON object')
    .action(async (mountpoint: string, options: object) =>
      (await import('./command-checkpoint.js')).checkpointCommand(mountpoint, options)
    )
  program
    .command('status')
    .description('what is mounted, present, changed, in transit')
    .argument('[mountpoint]', 'without it: all mounts of this user, and changes that were left behind on this client')
    .option('--json', 'one JSON object')
    .action(async (mountpoint: string | undefined, options: object, command: Command) =>
      (await import('./command-status.js')).statusCommand(mountpoint, withGlobals(command, options))
    )
  program
    .command('top')
    .description('watch a mount live in the terminal: map of its disks, rates, what a suspend would take')
    .argument('[mountpoint]', 'without it: any of this user')
    .option('--once', 'print what it would show now, and end')
    .action(async (mountpoint: string | undefined, options: TopOptions) =>
      (await import('./command-top.js')).topCommand(mountpoint, options)
    )
  program
    .command('dashboard')
    .description('serve a page for the browser of this computer: all mounts live, with maps, charts and buttons')
    .option('--port <port>', 'port of the loopback address; 0 takes a free one', defaultOf('dashboard.port'))
    .action(async (options: DashboardOptions) => (await import('./command-dashboard.js')).dashboardCommand(options))
  program
    .command('metrics')
    .description('figures in the text format of Prometheus, from the daemon itself')
    .argument('[mountpoint]', 'without it: all mounts of this user')
    .action(async (mountpoint: string | undefined) => (await import('./command-metrics.js')).metricsCommand(mountpoint))
  program
    .command('logs')
    .description('what has happened to a mount, also after it has ended')
    .argument('<mountpoint|vm>', 'a mountpoint, or a VM: its last mount on this client')
    .option('-f, --follow', 'go on with what is added, until ^C')
    .option('-n, --lines <n>', 'how many of the last lines, or all', '200')
    .option('--json', 'the lines as they are in the file: one JSON object each (docs/logs.md)')
    .action(async (where: string, options: LogsOptions, command: Command) =>
      (await import('./command-logs.js')).logsCommand(where, withGlobals(command, options))
    )
  program
    .command('warm')
    .description('fetch everything into the cache of this client, so that the share may go away; can be repeated')
    .argument('<mountpoint|vm>', 'a mount, or a VM on the share')
    .option(
      '--cache-size <size>',
      'how much of the disk the cache may take (for a VM that is not mounted)',
      defaultOf('cache-size')
    )
    .option('--json', 'one JSON object')
    .action(async (where: string, options: object, command: Command) =>
      (await import('./command-warm.js')).warmCommand(where, withGlobals(command, options))
    )
  program
    .command('recover')
    .description('publish the session that a mount has left behind on this client')
    .argument('<vm>', 'the VM on the share')
    .option('--discard', 'drop it instead, after saying what goes with it')
    .option('--salvage', 'of a damaged one: publish what is intact as a branch, and set it aside')
    .option('--accept-loss', 'publish it although a broken disk has lost writes, or the share parts of its base')
    .option('--accept-rollback', 'publish it as a branch although the share shows less than this client has seen')
    .option('--from <directory>', 'a session that was set aside because the client directory is a copy')
    .option('--json', 'one JSON object')
    .action(async (vm: string, options: object, command: Command) =>
      (await import('./command-recover.js')).recoverCommand(vm, withGlobals(command, options))
    )
}

function addShareViews(program: Command): void {
  program
    .command('list')
    .description('the VMs of a share')
    .argument('<share>', 'directory with VMs')
    .option('--json', 'one JSON array')
    .action(async (share: string, options: { json?: boolean }, command: Command) => {
      ;(await import('./command-share.js')).listCommand(share, withGlobals(command, options))
    })
  program
    .command('log')
    .description('the generations of a VM, newest first')
    .argument('<vm>', 'the VM on the share')
    .option('--json', 'one JSON array')
    .action(async (vm: string, options: { json?: boolean }) => {
      ;(await import('./command-log.js')).logCommand(vm, options)
    })
  program
    .command('diff')
    .description('files and bytes that differ between two generations')
    .argument('<vm>', 'the VM on the share')
    .argument('<a>', 'a generation or a branch')
    .argument('<b>', 'another one')
    .option('--json', 'one JSON array')
    .action(async (vm: string, from: string, to: string, options: { json?: boolean }) => {
      ;(await import('./command-history.js')).diffCommand(vm, from, to, options)
    })
  program
    .command('rollback')
    .description('make an older generation, or a branch, the newest one; nothing is lost')
    .argument('<vm>', 'the VM on the share')
    .argument('<n>', 'generation, or branch')
    .option('--accept-rollback', 'although the share has lost a newer generation (a restored backup)')
    .option('--json', 'one JSON object')
    .action(async (vm: string, name: string, options: object, command: Command) => {
      ;(await import('./command-history.js')).rollbackCommand(vm, name, withGlobals(command, options))
    })
  program
    .command('check')
    .description(
      'is all that the generations need on the share, and undamaged? With --cache: is the cache of this client?'
    )
    .argument('[vm]', 'the VM on the share')
    .option('--cache', 'compare the cached blocks of this client with their digests, and drop bad ones')
    .option('--generation <n>', 'only this generation or branch')
    .option('--read-data', 'read and verify every block, not only what leads to it')
    .option(
      '--repair',
      'verify every block, put damaged chunks and manifests back from the cache and the copies of this client where it has them, and make vm.json anew'
    )
    .option('--json', 'one JSON object')
    .action(async (vm: string | undefined, options: object, command: Command) =>
      (await import('./command-history.js')).checkCommand(vm, withGlobals(command, options))
    )
  program
    .command('prune')
    .description('remove old generations and the chunks that no other one needs; without --yes only says what would go')
    .argument('<vm>', 'the VM on the share')
    .option('--keep <n>', 'how many of the newest generations stay', defaultOf('prune.keep'))
    .option('--branch <name...>', 'branches to remove; the others stay')
    .option('--give-up <generation...>', 'remove generations or branches whose manifest is damaged')
    .option('--no-compact', 'leave chunks alone that are mostly garbage')
    .option(
      '--grace <duration>',
      'how long unused chunks are kept, by the clock of the server',
      defaultOf('prune.grace')
    )
    .option('--yes', 'do it')
    .option('--json', 'one JSON object')
    .action(async (vm: string, options: PruneCommandOptions, command: Command) => {
      ;(await import('./command-history.js')).pruneCommand(vm, withGlobals(command, options))
    })
  program
    .command('lease')
    .description('who holds the right to publish the next generation')
    .argument('<vm>', 'the VM on the share')
    .option('--break', 'end the lease of a holder that is gone for good')
    .option('--json', 'one JSON object')
    .action(async (vm: string, options: object, command: Command) =>
      (await import('./command-share.js')).leaseCommand(vm, withGlobals(command, options))
    )
}

function addVmms(program: Command): void {
  program
    .command('doctor')
    .description('why does it not mount, why is it slow: looks at host, disk, share and VM, and tells what to change')
    .argument('[vm-dir|vm|mountpoint]', 'a plain directory, a VM on the share, or a mount; without it: this host only')
    .option('--json', 'one JSON array')
    .action(async (where: string | undefined, options: object, command: Command) =>
      (await import('./command-doctor.js')).doctorCommand(where, withGlobals(command, options))
    )
  program
    .command('qemu')
    .description('run QEMU on the VM in a directory, normally a mount, until it ends; a suspended guest goes on')
    .argument('<vm-dir>', 'directory with one .vmx file')
    .argument('[qemu-arguments...]', 'after --: more arguments for QEMU')
    .option('--suspend', 'suspend the guest that runs there, with its memory, into the directory')
    .option('--power-down', 'ask the guest that runs there to power off')
    .option('--accel <list>', 'accelerators that QEMU shall try', defaultOf('qemu.accel'))
    .option('--is-running', 'only tell by the exit code whether QEMU runs there')
    .action(async (directory: string, more: string[], options: QemuOptions) =>
      (await import('./command-qemu.js')).qemuCommand(directory, more, options)
    )
}

function addConfiguration(program: Command): void {
  program
    .command('config')
    .description('print the settings in force and where each comes from: option, environment, file and line, default')
    .option('--template', 'print an example of a configuration file instead')
    .option('--json', 'one JSON object')
    .action(async (options: ConfigOptions, command: Command) =>
      (await import('./command-config.js')).configCommand(options, command)
    )
}

function addCompletion(program: Command): void {
  program
    .command('completion')
    .description('print completion for a shell; docs/operations.md says where it goes')
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .action((shell: Shell) => {
      result(completionScript(shell, program).trimEnd())
    })
}

/** commander takes styles out again where there is no terminal, or NO_COLOR. */
function styleTitle(title: string): string {
  return styleText('bold', title)
}

/** For install.sh, which writes all of them to a directory. */
function addManual(program: Command): void {
  program
    .command('manual', { hidden: true })
    .description('write the man pages into a directory')
    .argument('<directory>')
    .action((directory: string) => {
      for (const [name, text] of manPages(program)) fs.writeFileSync(path.join(directory, name), text)
    })
}

function withGlobals<Options extends object>(command: Command, options: Options): GlobalOptions & Options {
  return { ...command.optsWithGlobals<GlobalOptions>(), ...options }
}
