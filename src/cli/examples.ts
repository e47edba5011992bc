/** Lines to copy for each command: in --help, in the man pages and in docs/reference.md. */

export interface Example {
  readonly line: string
  readonly what: string
}

const example = (line: string, what: string): Example => ({ line: `isrfs ${line}`, what })

export const EXAMPLES: Readonly<Record<string, readonly Example[]>> = {
  import: [
    example('import ~/vms/testvm /export/testvm', 'a new VM on the share'),
    example(
      'import ~/vms/testvm /export/testvm --update',
      'what has changed in the directory becomes the next generation'
    )
  ],
  export: [
    example('export /export/testvm /tmp/testvm', 'the newest generation as plain files'),
    example('export /export/testvm /tmp/old --generation 3', 'an older one')
  ],
  mount: [
    example('mount /export/testvm /mnt/testvm', 'resume'),
    example('mount /export/testvm /mnt/testvm --allow-other --cache-size 50G', 'for VMware, with a larger cache'),
    example('mount /export/testvm /mnt/old --generation 3', 'look at an older generation'),
    example('mount /export/testvm /mnt/try --discard', 'try something that nobody will see')
  ],
  unmount: [
    example('unmount /mnt/testvm', 'suspend; when it returns 0 the cable may be pulled'),
    example('unmount /mnt/testvm --verify', 'read everything that was sent back')
  ],
  checkpoint: [
    example('checkpoint /mnt/testvm', 'a generation of what the guest has now, while it runs'),
    example('checkpoint /mnt/testvm --json | jq .holdMs', 'how long it was held for that')
  ],
  status: [
    example('status', 'all mounts'),
    example('status /mnt/testvm', 'what is changed, present, waiting'),
    example('status /mnt/testvm --json | jq .dirtyBytes', 'for a script')
  ],
  top: [
    example('top', 'all mounts of this user: left and right go from one to the next, q ends'),
    example('top /mnt/testvm --once', 'one look, also without a terminal')
  ],
  dashboard: [
    example('dashboard', 'prints an address with a token: open it in a browser'),
    example('dashboard --port 0', 'on any free port')
  ],
  metrics: [
    example('metrics /mnt/testvm', 'of one mount'),
    example('metrics', 'of all, for the textfile collector of the node exporter')
  ],
  logs: [
    example('logs /mnt/testvm -f', 'go on with what is added'),
    example('logs /export/testvm --json', 'of the last mount, for a program')
  ],
  warm: [
    example('warm /mnt/testvm', 'before the train: everything will be readable without the share'),
    example('warm /export/testvm', 'before it is mounted')
  ],
  recover: [
    example('recover /export/testvm', 'publish what a crash has left behind on this client'),
    example('recover /export/testvm --discard', 'drop it'),
    example('recover /export/testvm --salvage', 'it is damaged: keep what is intact as a branch')
  ],
  list: [example('list /export', 'the VMs of a share')],
  log: [example('log /export/testvm', 'its generations, newest first')],
  diff: [example('diff /export/testvm 3 4', 'what the fourth changed')],
  rollback: [example('rollback /export/testvm 3', 'the third becomes the newest, as a new generation')],
  check: [
    example('check /export/testvm', 'is everything there?'),
    example('check /export/testvm --read-data', 'and does every block have its digest?'),
    example('check /export/testvm --repair', 'put back what the cache of this client has'),
    example('check --cache', 'the cache of this client')
  ],
  prune: [
    example('prune /export/testvm --keep 5', 'what would go'),
    example('prune /export/testvm --keep 5 --yes', 'do it')
  ],
  lease: [
    example('lease /export/testvm', 'who may publish'),
    example('lease /export/testvm --break', 'the computer that holds it is gone for good')
  ],
  doctor: [
    example('doctor', 'is this host fit for isrfs?'),
    example('doctor /export/testvm', 'the share and the settings of the VM, too')
  ],
  qemu: [
    example('qemu /mnt/testvm', 'run the guest'),
    example('qemu /mnt/testvm --suspend', 'suspend it, with its memory'),
    example('qemu /mnt/testvm -- -nographic', 'with more words for QEMU')
  ],
  config: [
    example('config', 'what is in force'),
    example('config --template > ~/.config/isrfs/config.toml', 'a file to begin with')
  ],
  completion: [example('completion bash > ~/.local/share/bash-completion/completions/isrfs', 'for bash')]
}

/** For --help; empty for a command without examples. */
export function examplesText(command: string): string {
  const examples = EXAMPLES[command] ?? []
  if (examples.length === 0) return ''
  return `\nExamples:\n${examples.map(({ line, what }) => `  # ${what}\n  ${line}`).join('\n')}`
}
