/**
 * Completion for bash, zsh and fish, written out from the commands themselves: words of commands and options, paths for
 * everything else. Libraries for this ask the program at each key press and have no paths, which are most of our arguments.
 */
import type { Command, Option } from 'commander'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof SHELLS)[number]

interface Described {
  readonly name: string
  readonly description: string
  readonly takesValue: boolean
}

interface CommandWords {
  readonly names: readonly string[]
  readonly description: string
  readonly options: readonly Described[]
}

export function completionScript(shell: Shell, program: Command): string {
  // as in --help
  const visible = program.createHelp().visibleCommands(program)
  const commands = visible
    .filter((command) => program.commands.includes(command))
    .map((command) => ({
      names: [command.name(), ...command.aliases()],
      description: firstClause(command.description()),
      options: [...command.options, ...program.options].filter(({ hidden }) => !hidden).map(described)
    }))
  switch (shell) {
    case 'bash':
      return bash(program.name(), commands)
    case 'zsh':
      return zsh(program.name(), commands)
    case 'fish':
      return fish(program.name(), commands)
  }
}

function described(option: Option): Described {
  return {
    name: option.long ?? option.short ?? '',
    description: firstClause(option.description),
    takesValue: option.required
  }
}

function firstClause(text: string): string {
  return (text.split(/[;:(]/)[0] ?? '').trim()
}

function bash(name: string, commands: readonly CommandWords[]): string {
  const cases = commands.map(
    ({ names, options }) => `    ${names.join('|')}) words='${options.map((option) => option.name).join(' ')}' ;;`
  )
  return `# bash completion for ${name}
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} command='' word words
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in -*) ;; *) command=$word; break ;; esac
  done
  case $command in
    '') words='${commands.flatMap(({ names }) => names).join(' ')}' ;;
${cases.join('\n')}
    *) words= ;;
  esac
  if [[ -z $command || $current == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current"); fi
}
complete -o bashdefault -o default -F _${name} ${name}
`
}

function zsh(name: string, commands: readonly CommandWords[]): string {
  const cases = commands.map(({ names, options }) => {
    const words = options.map(
      ({ name: option, description, takesValue }) =>
        `'${option}[${inBrackets(description)}]${takesValue ? ':value:_files' : ''}'`
    )
    return `      ${names.join('|')}) _arguments ${words.join(' ')} '*:path:_files' ;;`
  })
  const list = commands.map(({ names: [first = ''], description }) => `'${first}:${inQuotes(description)}'`)
  return `#compdef ${name}
_${name}() {
  local context state line
  _arguments -C '1: :->command' '*:: :->rest'
  case $state in
    command)
      local -a commands=(${list.join(' ')})
      _describe command commands ;;
    rest)
      case $words[1] in
${cases.join('\n')}
      esac ;;
  esac
}
_${name} "$@"
`
}

function fish(name: string, commands: readonly CommandWords[]): string {
  const lines = commands.flatMap(({ names, description, options }) => [
    ...names.map((word) => `complete -c ${name} -n __fish_use_subcommand -f -a ${word} -d '${inQuotes(description)}'`),
    ...options.map(
      ({ name: option, description: what, takesValue }) =>
        `complete -c ${name} -n '__fish_seen_subcommand_from ${names.join(' ')}' -l ${option.slice(2)}${takesValue ? ' -r' : ''} -d '${inQuotes(what)}'`
    )
  ])
  return `# fish completion for ${name}\n${lines.join('\n')}\n`
}

/** Within single quotes of any of the three shells: typographic apostrophes need no escape. */
function inQuotes(text: string): string {
  return text.replaceAll("'", '’')
}

function inBrackets(text: string): string {
  return inQuotes(text).replace(/[[\]]/g, '')
}
