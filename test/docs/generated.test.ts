/** What the documentation says of the program is what the program is. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { documents, ROOT, upToDate } from './generated.js'

for (const name of documents()) {
  const text = fs.readFileSync(path.join(ROOT, name), 'utf8')
  if (!text.includes('<!-- generated: ')) continue
  test(`${name} is what npm run docs writes`, (t) => {
    t.is(text, upToDate(text))
    const stale = text.replace(/(<!-- generated: .* -->\n)./g, '$1#')
    t.is(upToDate(stale), text, 'a difference is seen, and mended')
  })
}

test('a part that nothing generates is an error', (t) => {
  t.throws(() => upToDate('<!-- generated: dreams (npm run docs) -->\n<!-- end -->'), { message: /dreams/ })
})
