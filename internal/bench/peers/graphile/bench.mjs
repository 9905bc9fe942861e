// Measures graphile-worker as the bench asks: prepares a workload in an empty database,
// times it, and prints a number: tasks or flows a second.
//
//   node bench.mjs WORKLOAD COUNT CLIENTS    the database by PGHOST, PGPORT, PGUSER, PGDATABASE
//
// The workloads are W1, W2 and, for there are three ways to register a flow of 3 jobs:
//
//   W3        one by one, in a transaction
//   W3many    all at once
//   W3first   the first alone, of a chain whose jobs insert each other
import { run, Logger, makeWorkerUtils } from "graphile-worker";
import pg from "pg";

const [workload, count, clients] = [process.argv[2], +process.argv[3], +process.argv[4]];
const size = { W1: 1, W2: 3, W3: 3, W3many: 3, W3first: 3 }[workload];
if (!size) throw new Error(`no workload ${workload}`);
const quiet = new Logger(() => () => {});
const pool = new pg.Pool({ max: Math.max(clients, 10) });
pool.on("error", () => {}); // the pool replaces the connection
const utils = await makeWorkerUtils({ pgPool: pool, logger: quiet });
await utils.migrate();

const insert = {
  W3: async () => {
    const client = await pool.connect();
    try {
      await client.query("BEGIN");
      for (const n of [1, 2, 3]) await client.query("SELECT graphile_worker.add_job('step', json_build_object('n', $1::int))", [n]);
      await client.query("COMMIT");
    } finally {
      client.release();
    }
  },
  W3many: () => utils.addJobs([1, 2, 3].map((n) => ({ identifier: "step", payload: { n } }))),
  W3first: () => utils.addJob("step", { n: 1 }),
}[workload];
if (insert) {
  let left = count;
  const begun = performance.now();
  await Promise.all(Array.from({ length: clients }, async () => {
    while (left-- > 0) await insert();
  }));
  console.log(count / ((performance.now() - begun) / 1000));
} else {
  for (let i = 0; i < count; i += 5000) {
    await pool.query(
      `SELECT graphile_worker.add_jobs(array(SELECT ('step', '{"n": 1}'::json, null, null, null, null, null, null)::graphile_worker.job_spec FROM generate_series(1, $1)))`,
      [Math.min(5000, count - i)]);
  }
  await pool.query("VACUUM ANALYZE graphile_worker._private_jobs");
  let left = count * size;
  let done;
  const finished = new Promise((resolve) => { done = resolve; });
  const begun = performance.now();
  const runner = await run({
    pgPool: pool,
    logger: quiet,
    noHandleSignals: true,
    concurrency: 96,
    preset: { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
    taskList: {
      step: async ({ n }, helpers) => {
        if (n < size) await helpers.addJob("step", { n: n + 1 });
        if (--left === 0) done();
      },
    },
  });
  await finished;
  await runner.stop(); // what is done is recorded
  console.log((count * size) / ((performance.now() - begun) / 1000));
}
await utils.release();
await pool.end();
