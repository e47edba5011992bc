/** npm run docs: writes the generated parts of the documentation. */
import fs from 'node:fs'
import path from 'node:path'
import { documents, ROOT, upToDate } from './generated.js'

for (const name of documents()) {
  const file = path.join(ROOT, name)
  const text = fs.readFileSync(file, 'utf8')
  const wanted = upToDate(text)
  if (wanted === text) continue
  fs.writeFileSync(file, wanted)
  process.stdout.write(`${name}\n`)
}
