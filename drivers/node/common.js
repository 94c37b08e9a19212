// What the Node scenarios share: how an outcome is told.
'use strict';
const { createHash } = require('node:crypto');

const LARGE = '0123456789abcdé\n'.repeat(65536);

// A value on one line, short and always the same.
function show(value) {
  const plain = (_key, v) => (typeof v === 'bigint' ? `${v}n` : v && v.type === 'Buffer' ? `hex:${Buffer.from(v.data).toString('hex')}` : v);
  const text = JSON.stringify(value, plain) ?? 'undefined';
  return text.length > 400 ? `${text.length} characters, ${createHash('sha256').update(text).digest('hex').slice(0, 16)}` : text;
}

const describe = (error) => `error ${error.code ?? error.name}: ${String(error.message).split('\n')[0]}`;

const tell = (feature, outcome) => process.stdout.write(`${feature}\t${outcome}\n`.replaceAll(/\n(?=.)/g, '\\n'));

// Runs one check, for 30 s at most, and prints what came of it.
async function feature(name, check) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('waited for 30 s')), 30000);
  });
  try {
    tell(name, `ok ${show(await Promise.race([check(), late]))}`);
  } catch (error) {
    tell(name, describe(error));
  } finally {
    clearTimeout(timer);
  }
}

// What must fail; the error's description.
async function expect(promise) {
  try {
    await promise;
  } catch (error) {
    return describe(error);
  }
  throw new Error('no error');
}

const finish = () => tell('end', 'ok');
const soon = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

module.exports = { LARGE, tell, feature, expect, finish, soon };
