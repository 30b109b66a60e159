// Evaluates the policies of deploy/aws with an engine that works like IAM, for the S3 requests that Valet sent in tests
// (VALET_TEST_S3_REQUESTS; tests/api/deployment). All of them must be allowed, each permission and prefix must be needed, and each
// statement of the bucket's policy must be the only one that denies its requests.
//     node policies.js deploy/aws REQUESTS.json
import { readFileSync } from 'node:fs'
import { anonymousPrincipal, runSimulation } from '@cloud-copilot/iam-simulate'

const [folder, requests] = process.argv.slice(2)
// The engine knows the condition keys (`NAME:aud`) of a few OIDC providers; one of them replaces the cluster's.
const names = { BUCKET: 'valet-images', ACCOUNT: '123456789012', OIDC_PROVIDER: 'accounts.google.com' }
const policy = (name) =>
  JSON.parse(readFileSync(`${folder}/${name}`, 'utf8').replace(/BUCKET|ACCOUNT|OIDC_PROVIDER/g, (name) => names[name]))
const [serving, operating, bucket] = ['iam-policy.json', 'operator-policy.json', 'bucket-policy.json'].map(policy)
const asked = JSON.parse(readFileSync(requests, 'utf8'))
const role = (name) => `arn:aws:iam::${names.ACCOUNT}:role/${name}`
const minute = 60_000

let evaluated = 0
async function ask({ principal, policies, resourcePolicy, action, resource, context }) {
  evaluated += 1
  const isAnonymous = principal === anonymousPrincipal
  const answer = await runSimulation(
    {
      request: {
        principal,
        action,
        resource: { resource, accountId: names.ACCOUNT },
        contextVariables: isAnonymous ? context : { 'aws:PrincipalArn': principal, ...context },
      },
      identityPolicies: isAnonymous ? [] : policies.map((policy, index) => ({ name: `policy-${index}`, policy })),
      serviceControlPolicies: [],
      resourceControlPolicies: [],
      resourcePolicy,
    },
    {},
  )
  if (answer.resultType !== 'single') throw new Error(`${action} on ${resource}: ${JSON.stringify(answer.errors)}`)
  if (answer.result.ignoredContextKeys.includes('s3:signatureAge') && action.startsWith('s3:')) throw new Error(`${action}: the engine ignores s3:signatureAge`)
  return answer.overallResult === 'Allowed'
}

/** Returns a recorded request, sent over TLS 1.3, with the greatest signature age that Valet allows. */
const recorded = (one, changes = {}) => ({
  principal: role('valet'),
  policies: [serving],
  resourcePolicy: bucket,
  action: one.action,
  resource: `arn:aws:s3:::${names.BUCKET}${one.key && `/${one.key}`}`,
  ...changes,
  context: {
    'aws:SecureTransport': 'true',
    's3:TlsVersion': '1.3',
    's3:authType': one.authType,
    's3:signatureAge': String(one.authType === 'REST-HEADER' ? 1000 : 60 * minute),
    ...changes.context,
  },
})
const failures = []
const must = (holds, condition) => holds || failures.push(condition)

// Without the calls that read the bucket's settings: if the role may not make them, `valet check` reports it and continues.
const settings = operating.Statement.flatMap((statement) => statement.Action)
const byRole = asked.role.filter((one) => !settings.includes(one.action))
const operator = { principal: role('valet-operator'), policies: [serving, operating] }
const all = [...byRole.map((one) => recorded(one)), ...asked.operator.map((one) => recorded(one, operator))]
for (const request of all) must(await ask(request), `${request.principal} may not ${request.action} on ${request.resource}`)

/** Yields copies of a policy, each without one action or one resource. */
function* thinner(policy) {
  for (const [index, statement] of policy.Statement.entries()) {
    for (const member of ['Action', 'Resource']) {
      const list = [statement[member]].flat()
      if (list.length === 1) continue
      for (const item of list) {
        const less = structuredClone(policy)
        less.Statement[index][member] = list.filter((other) => other !== item)
        yield [less, item]
      }
    }
  }
}
async function someIsRefused(requests) {
  for (const request of requests) if (!(await ask(request))) return true
  return false
}
for (const [less, item] of thinner(serving)) {
  must(await someIsRefused(byRole.map((one) => recorded(one, { policies: [less] }))), `iam-policy.json: nothing needs ${item}`)
}
for (const [less, item] of thinner(operating)) {
  const requests = asked.operator.map((one) => recorded(one, { ...operator, policies: [serving, less] }))
  must(await someIsRefused(requests), `operator-policy.json: nothing needs ${item}`)
}

// Requests that each statement of the bucket's policy must deny, and that are allowed without the statement.
const everything = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 's3:*', Resource: '*' }] }
const stranger = { principal: role('stranger'), policies: [everything] }
const get = { action: 's3:GetObject', key: 'u/a/b', authType: 'REST-QUERY-STRING' }
const put = { ...get, action: 's3:PutObject' }
const refused = {
  DenyPlainHttp: [recorded(get, { context: { 'aws:SecureTransport': 'false' } }), recorded({ ...get, action: 's3:ListBucket', key: '' }, { context: { 'aws:SecureTransport': 'false' } })],
  DenyTlsBelow12: [recorded(put, { context: { 's3:TlsVersion': '1.1' } })],
  DenyOldSignatures: [get, put, { ...put, key: 'in/a/b', authType: 'POST' }].map((one) => recorded(one, { context: { 's3:signatureAge': String(66 * minute) } })),
  DenyOtherKeys: [recorded({ ...put, key: 'users.csv' }, { policies: [everything] }), recorded({ ...put, key: 'check' }, { policies: [everything] })],
  DenyOtherPrincipals: ['s3:GetObject', 's3:GetObjectVersion', 's3:PutObject', 's3:PutObjectAcl', 's3:DeleteObject', 's3:DeleteObjectVersion'].map((action) => recorded({ ...get, action }, stranger)),
}
must(bucket.Statement.every((statement) => statement.Effect === 'Deny'), 'bucket-policy.json allows something')
must(String(bucket.Statement.map((statement) => statement.Sid)) === String(Object.keys(refused)), 'bucket-policy.json: its statements differ from the tested ones')
for (const [sid, requests] of Object.entries(refused)) {
  const without = { ...bucket, Statement: bucket.Statement.filter((statement) => statement.Sid !== sid) }
  for (const request of requests) {
    must(!(await ask(request)), `bucket-policy.json: ${sid} does not deny ${request.action}`)
    must(await ask({ ...request, resourcePolicy: without }), `bucket-policy.json: another statement than ${sid} denies ${request.action}`)
  }
}
must(!(await ask(recorded(get, { principal: anonymousPrincipal }))), 'anonymous clients may read objects')
must(!(await ask(recorded({ ...get, action: 's3:GetObject', key: 'logs/x' }))), 'the role may read outside its prefixes')

// The policy has no Deny of writes without If-None-Match, because Valet's copies are sent without it (and forms and parts cannot have it).
const once = {
  ...bucket,
  Statement: [...bucket.Statement, { Sid: 'OnceOnly', Effect: 'Deny', Principal: '*', Action: 's3:PutObject', Resource: `arn:aws:s3:::${names.BUCKET}/u/*`, Condition: { Null: { 's3:if-none-match': 'true' } } }],
}
const copies = byRole.filter((one) => one.operation === 'CopyObject' && one.action === 's3:PutObject' && one.key.startsWith('u/'))
must(copies.length > 0, 'no copy was recorded')
for (const one of copies) must(!(await ask(recorded(one, { resourcePolicy: once }))), 'a Deny of writes without If-None-Match would allow copies: add it to the policy')

// Principals that may assume the role.
async function assumes(file, { principal, action, context }) {
  const trust = { principal, policies: [], resourcePolicy: policy(file), action, resource: role('valet'), context }
  return ask(trust)
}
const pod = (changes) => ({
  principal: `arn:aws:iam::${names.ACCOUNT}:oidc-provider/${names.OIDC_PROVIDER}`,
  action: 'sts:AssumeRoleWithWebIdentity',
  context: { [`${names.OIDC_PROVIDER}:aud`]: 'sts.amazonaws.com', [`${names.OIDC_PROVIDER}:sub`]: 'system:serviceaccount:valet:valet', ...changes },
})
must(await assumes('trust-policy-eks.json', pod({})), 'trust-policy-eks.json: the service account may not assume the role')
must(!(await assumes('trust-policy-eks.json', pod({ [`${names.OIDC_PROVIDER}:sub`]: 'system:serviceaccount:default:default' }))), 'trust-policy-eks.json: another service account may assume the role')
must(!(await assumes('trust-policy-eks.json', pod({ [`${names.OIDC_PROVIDER}:aud`]: 'else' }))), 'trust-policy-eks.json: a token for another audience is accepted')
const task = (account) => ({
  principal: 'ecs-tasks.amazonaws.com',
  action: 'sts:AssumeRole',
  context: { 'aws:SourceAccount': account, 'aws:SourceArn': `arn:aws:ecs:eu-central-1:${account}:*` },
})
must(await assumes('trust-policy-ecs.json', task(names.ACCOUNT)), 'trust-policy-ecs.json: a task of this account may not assume the role')
must(!(await assumes('trust-policy-ecs.json', task('999999999999'))), 'trust-policy-ecs.json: a task of another account may assume the role')

for (const failure of failures) console.error(failure)
console.log(`policies: ${all.length} recorded requests allowed, ${evaluated} evaluations, ${failures.length} findings`)
process.exitCode = failures.length ? 1 : 0
