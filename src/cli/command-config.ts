/** isrfs config: what is in force, and where each value comes from. */
import type { Command } from 'commander'
import fs from 'node:fs'
import { configurationPlaces, type Resolved, resolveSettings } from './configuration/resolve.js'
import { SETTINGS } from './configuration/settings.js'
import { templateText } from './configuration/template.js'
import { notice, result } from './output.js'
import { table } from './table.js'

export interface ConfigOptions {
  readonly json?: boolean
  readonly template?: boolean
}

export async function configCommand(options: ConfigOptions, command: Command): Promise<void> {
  if (options.template === true) {
    result(templateText().trimEnd())
    return
  }
  const resolved = await resolveSettings(SETTINGS, command)
  const { user, system } = configurationPlaces()
  const files = [user, system].map((file) => ({ path: file, exists: fs.existsSync(file) }))
  if (options.json === true) {
    result(JSON.stringify({ files, settings: resolved.map(jsonOf) }))
    return
  }
  const columns = [{ title: 'SETTING' }, { title: 'VALUE' }, { title: 'FROM' }]
  result(
    table(
      columns,
      resolved.map(({ setting, value, source, from }) => [
        setting.name,
        value === undefined ? `(${setting.otherwise ?? 'none'})` : String(value),
        source === 'default' ? 'default' : from
      ])
    )
  )
  for (const { path: file, exists } of files) if (!exists) notice(`there is no ${file}`)
}

function jsonOf({ setting, value, source, from }: Resolved): object {
  return { name: setting.name, value: value ?? null, source, from }
}
