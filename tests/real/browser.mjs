// Checks of what Chromium makes of a running blobserve: `browser.mjs PLAYWRIGHT URLS`. URLS is a JSON
// object of the roots of four images: `site` (configured by name), `unknown` (the same image, not
// configured), `one` and `two` (which have origins of their own). One line a check, `ok: NAME` or
// `FAILED: NAME: WHY`; exit status 1 if one failed.
import assert from 'node:assert/strict'

const { chromium } = await import(process.argv[2])
const urls = JSON.parse(process.argv[3])
/** Longest that anything in a page may take, in milliseconds: the machine may be busy. */
const PATIENCE = 60_000

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--autoplay-policy=no-user-gesture-required'],
})

/** A visitor who has not been here; `complaints` is what the browser had to say. */
async function visitor (options = {}) {
  const context = await browser.newContext(options)
  context.setDefaultTimeout(PATIENCE)
  const page = await context.newPage()
  const complaints = []
  page.on('console', message => {
    if (['error', 'warning'].includes(message.type())) {
      complaints.push(`${message.text()} (${message.location().url})`)
    }
  })
  page.on('pageerror', error => complaints.push(String(error)))
  page.on('requestfailed', request => complaints.push(`${request.url()}: ${request.failure().errorText}`))
  page.on('response', response => {
    if (response.status() >= 400) complaints.push(`${response.url()}: ${response.status()}`)
  })
  return { context, page, complaints }
}

/** What an expression in a page throws, by name; 'nothing' if it does not. */
function thrown (page, source) {
  return page.evaluate(async source => {
    try {
      await (0, eval)(`(async () => { ${source} })()`)
      return 'nothing'
    } catch (error) {
      return error.name
    }
  }, source)
}

/** Loads the page whose script names its own title. */
async function load (page, url) {
  const ended = page.waitForFunction(() => document.title.includes('later'))
  await page.goto(url)
  await ended
}

/** Repeats until `wanted` gives something. */
async function eventually (what, wanted) {
  for (const began = Date.now(); Date.now() - began < PATIENCE;) {
    const got = await wanted()
    if (got) return got
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  assert.fail(`${what} in ${PATIENCE / 1000} s`)
}

const registered = `
  const registration = await navigator.serviceWorker.register(SCRIPT)
  await navigator.serviceWorker.ready
  if (!navigator.serviceWorker.controller) {
    await new Promise(resolve => navigator.serviceWorker.addEventListener('controllerchange', resolve))
  }`
const serve = script => registered.replace('SCRIPT', `'${script}'`)

const checks = {
  async 'module scripts, a font, CSS, SVG, JSON and WebAssembly load without a complaint' () {
    const { page, complaints } = await visitor()
    const types = new Map()
    page.on('response', response => types.set(new URL(response.url()).pathname.split('/').pop(), response.headers()['content-type']))
    await load(page, urls.site)
    assert.equal(await page.title(), '24000 later ä')
    const seen = await page.evaluate(() => ({
      color: getComputedStyle(document.querySelector('#text')).color,
      fonts: [...document.fonts].map(font => `${font.family} ${font.status}`),
      image: document.querySelector('#image').naturalWidth,
    }))
    assert.deepEqual(seen, { color: 'rgb(1, 2, 3)', fonts: ['Own loaded'], image: 7 })
    assert.match(types.get('own.ttf'), /^font\//)
    // Once more, out of the browser's cache where it validates.
    await page.evaluate(() => { document.title = 'again' })
    await load(page, urls.site)
    assert.equal(await page.title(), '24000 later ä')
    assert.deepEqual(complaints, [])
  },

  async 'what is compressed meanwhile comes as br or zstd, and is the same' () {
    const encoding = await eventually('br or zstd', async () => {
      const { context, page, complaints } = await visitor()
      const words = page.waitForResponse(response => response.url().endsWith('/lib/words.js'))
      await load(page, urls.site)
      assert.equal(await page.title(), '24000 later ä')
      assert.deepEqual(complaints, [])
      const fields = await (await words).allHeaders()
      await context.close()
      if (fields['content-encoding']) assert.match(fields.vary, /accept-encoding/i)
      return fields['content-encoding']
    })
    assert.ok(['br', 'zstd'].includes(encoding), encoding)
  },

  async 'seeking in a video asks for the range, and plays from there' () {
    const { page, complaints } = await visitor()
    const ranges = []
    page.on('response', response => {
      if (response.url().endsWith('/film.webm')) {
        ranges.push({ status: response.status(), range: response.headers()['content-range'] })
      }
    })
    await page.goto(urls.site + 'video.html')
    await page.waitForFunction(() => document.querySelector('video').readyState >= 1 || document.querySelector('video').error)
    assert.equal(await page.evaluate(() => document.querySelector('video').error?.message), undefined)
    assert.equal(await page.evaluate(() => document.querySelector('video').duration), 200)
    assert.equal(await page.evaluate(() => document.querySelector('video').videoWidth), 1)
    const at = await page.evaluate(async () => {
      const video = document.querySelector('video')
      const sought = new Promise(resolve => video.addEventListener('seeked', resolve))
      video.currentTime = 180
      await sought
      await video.play()
      await new Promise(resolve => video.addEventListener('timeupdate', () => {
        if (video.currentTime > 180.5) resolve()
      }))
      return video.currentTime
    })
    assert.ok(at > 180.5 && at < 200, `${at}`)
    assert.ok(ranges.every(({ status }) => status === 206), JSON.stringify(ranges))
    const far = ranges.map(({ range }) => Number(/^bytes (\d+)-\d+\/\d+$/.exec(range)[1]))
    assert.ok(Math.max(...far) > 10_000_000, JSON.stringify(ranges))
    // A range that is not needed any longer is cancelled by the browser: that is no fault.
    assert.deepEqual(complaints.filter(text => !text.includes('ERR_ABORTED')), [])
  },

  async 'a service worker of an image with an origin of its own answers for all of it' () {
    const { page, complaints } = await visitor()
    await page.goto(urls.one)
    assert.equal(await thrown(page, serve('worker.js')), 'nothing')
    assert.equal(await page.evaluate(async () => (await fetch('/made')).text()), 'made by the worker')
    await page.reload()
    assert.equal(await page.evaluate(async () => (await fetch('secret.txt')).text()), 'secret of one')
    assert.deepEqual(complaints, [])
  },

  async 'a service worker of a path URL answers below its directory, and nowhere else' () {
    const { page } = await visitor()
    await page.goto(urls.site + 'workers/')
    assert.equal(await thrown(page, serve('worker.js')), 'nothing')
    assert.equal(await page.evaluate(async () => (await fetch('made')).text()), 'made by the worker')
    // The image's _headers asks for Service-Worker-Allowed: /.
    for (const scope of ['/', '../']) {
      const source = `await navigator.serviceWorker.register('worker.js', { scope: '${scope}' })`
      assert.equal(await thrown(page, source), 'SecurityError', scope)
    }
    await page.goto(urls.site + 'plain.html')
    assert.equal(await page.evaluate(() => navigator.serviceWorker.controller), null)
    assert.equal(await page.evaluate(async () => (await fetch('made')).status), 404)
  },

  async 'two images have two origins, and one reads neither the files nor the storage of the other' () {
    const { context, page: one } = await visitor()
    await one.goto(urls.one)
    const origin = await one.evaluate(() => origin)
    assert.match(origin, /^http:\/\/[a-z2-7]{52}\.u\.localhost:\d+$/)
    await one.evaluate(() => localStorage.setItem('key', 'of one'))
    await one.reload()
    assert.equal(await one.evaluate(() => localStorage.getItem('key')), 'of one')
    assert.equal(await one.evaluate(async () => (await fetch('/secret.txt')).text()), 'secret of one')

    const two = await context.newPage()
    await two.goto(urls.two)
    assert.equal(await two.title(), 'two')
    assert.notEqual(await two.evaluate(() => origin), origin)
    assert.equal(await two.evaluate(() => localStorage.getItem('key')), null)
    assert.equal(await two.evaluate(async () => (await fetch('/secret.txt')).text()), 'secret of two')
    for (const url of [`${origin}/secret.txt`, `${urls.one}secret.txt`, `${urls.site}data.json`]) {
      assert.equal(await thrown(two, `await (await fetch('${url}')).text()`), 'TypeError', url)
      const opaque = await two.evaluate(async url => {
        const answer = await fetch(url, { mode: 'no-cors' })
        return [answer.type, await answer.text()]
      }, url)
      assert.deepEqual(opaque, ['opaque', ''], url)
    }
    // The frame of the other is loaded, and closed to scripts; document.domain does not open it.
    await two.evaluate(url => new Promise(resolve => {
      const frame = document.createElement('iframe')
      frame.src = url
      frame.addEventListener('load', resolve)
      document.body.append(frame)
    }), origin)
    const frame = two.frames().find(frame => frame.url().startsWith(origin))
    assert.equal(await frame.title(), 'one')
    for (const side of [two, frame]) {
      await side.evaluate(() => { try { document.domain = 'u.localhost' } catch { /* refused, too */ } })
    }
    assert.equal(await two.evaluate(() => document.querySelector('iframe').contentDocument), null)
    assert.equal(await thrown(two, 'return frames[0].document.title'), 'SecurityError')
  },

  async 'an image that is not configured runs in a sandbox: an opaque origin without storage' () {
    const { page } = await visitor()
    await page.goto(urls.unknown + 'plain.html')
    assert.equal(await page.evaluate(() => origin), 'null')
    for (const source of ['localStorage.getItem("key")', 'document.cookie', 'await navigator.serviceWorker.register("workers/worker.js")']) {
      assert.equal(await thrown(page, source), 'SecurityError', source)
    }
    for (const url of [urls.site + 'data.json', urls.unknown + 'data.json']) {
      assert.equal(await thrown(page, `await fetch('${url}')`), 'TypeError', url)
    }
    // What is configured is not in one.
    await page.goto(urls.site + 'plain.html')
    assert.equal(await page.evaluate(() => origin), new URL(urls.site).origin)
    assert.equal(await thrown(page, 'localStorage.getItem("key")'), 'nothing')
  },

  async 'a listing is shown as it is meant, and violates no policy' () {
    for (const root of [urls.site, urls.unknown]) {
      for (const scheme of ['light', 'dark']) {
        const { page, complaints } = await visitor({ colorScheme: scheme })
        await page.goto(root + 'list/')
        const seen = await page.evaluate(() => ({
          table: getComputedStyle(document.querySelector('table')).borderCollapse,
          paper: getComputedStyle(document.body).backgroundColor,
          elements: document.querySelectorAll('i').length,
        }))
        const paper = scheme === 'dark' ? 'rgb(22, 22, 22)' : 'rgb(255, 255, 255)'
        assert.deepEqual(seen, { table: 'collapse', paper, elements: 0 })
        assert.deepEqual(complaints, [])
      }
    }
  },

  async 'a listing is sorted, and its files are opened, without scripts' () {
    const { page } = await visitor({ javaScriptEnabled: false })
    await page.goto(urls.site + 'list/')
    const names = async () => (await page.locator('tr td:first-child a').allTextContents())
      .filter(name => name !== '../').map(name => name.trim())
    assert.deepEqual(await names(), ['<i>&c.txt', 'a.txt', 'b.txt'])
    const table = [
      ['Name', ['b.txt', 'a.txt', '<i>&c.txt'], 'descending'],
      ['Size', ['b.txt', '<i>&c.txt', 'a.txt'], 'ascending'],
      ['Size', ['a.txt', '<i>&c.txt', 'b.txt'], 'descending'],
      ['Name', ['<i>&c.txt', 'a.txt', 'b.txt'], 'ascending'],
    ]
    for (const [column, wanted, order] of table) {
      await page.getByRole('link', { name: column, exact: true }).click()
      await page.locator(`th[aria-sort=${order}]`, { hasText: column }).waitFor()
      assert.deepEqual(await names(), wanted, `${column} ${order}`)
    }
    await page.getByRole('link', { name: '<i>&c.txt', exact: true }).click()
    await page.waitForURL('**/list/*.txt')
    assert.equal(await page.locator('body').textContent(), 'cc')
  },
}

let failed = 0
for (const [name, check] of Object.entries(checks)) {
  try {
    await Promise.race([check(), new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`not done in ${2 * PATIENCE / 1000} s`)), 2 * PATIENCE).unref()
    })])
    console.log(`ok: ${name}`)
  } catch (error) {
    failed += 1
    console.log(`FAILED: ${name}: ${error.message}`)
  }
  for (const context of browser.contexts()) await context.close()
}
await browser.close()
process.exit(failed ? 1 : 0)
