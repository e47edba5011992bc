/** Tells eslint-plugin-boundaries which source an import of compiled code means: './x.js' is './x.ts'. */
const path = require('node:path')
const { isBuiltin } = require('node:module')

exports.interfaceVersion = 2

exports.resolve = (source, importer) => {
  if (isBuiltin(source)) return { found: true, path: null }
  if (!source.startsWith('.')) return { found: false }
  return { found: true, path: path.resolve(path.dirname(importer), source.replace(/\.js$/, '.ts')) }
}
