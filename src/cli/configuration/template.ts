/** A configuration file that sets nothing: every setting with its default, behind a comment sign. */
import { environmentName, optionName, type Setting, SETTINGS } from './settings.js'

export function templateText(): string {
  const lines = [
    '# Configuration of isrfs, for /etc/isrfs.toml (everybody) or ~/.config/isrfs/config.toml (you; counts more).',
    '# Options and the environment count more than both. `isrfs config` prints what is in force.'
  ]
  let table = ''
  for (const setting of SETTINGS) {
    const dot = setting.name.indexOf('.')
    const own = setting.name.slice(0, Math.max(dot, 0))
    if (own !== table) {
      lines.push('', `[${own}]`)
      table = own
    }
    lines.push('', `# ${setting.description} (${optionName(setting)}, ${environmentName(setting)})`)
    lines.push(`# ${setting.name.slice(dot + 1)} = ${exampleOf(setting)}`)
  }
  return `${lines.join('\n')}\n`
}

function exampleOf({ kind, default: value, otherwise }: Setting): string {
  if (value !== undefined) return typeof value === 'string' ? `"${value}"` : String(value)
  const example = kind === 'path' ? '"/srv/isrfs"' : kind === 'duration' ? '"30s"' : '0'
  return `${example}  # without it: ${otherwise ?? 'none'}`
}
