import fs from 'node:fs'
import test from 'ava'
import { formatExample } from '../support/format-example.js'

test('the worked example of docs/format.md is what the code writes', (t) => {
  const document = fs.readFileSync('docs/format.md', 'utf8')
  const example = formatExample()
  t.is(document.match(/<!-- example: /g)?.length, example.size)
  for (const [title, text] of example) {
    const found = new RegExp(`<!-- example: ${title} -->\\n\\n\`\`\`[a-z]*\\n([^\`]*)\\n\`\`\``).exec(document)?.[1]
    t.is(found, text, title)
  }
})
