-- Runs in which a call was refused, asked or flagged for what the run had read, and resets; chain lists the calls that read.
-- since: DateTime = 7d | start of the period
-- run: String = % | only this run (a pattern of LIKE)
SELECT at, customer, key, run, verdict, concat(server, if(tool = '', '', '__'), tool) AS sink, chain,
    private, untrusted, writes, narrowed, call_id, approval, by, reason
FROM flow_decisions
WHERE verdict != 'passed' AND at >= {since:DateTime} AND run LIKE {run:String}
ORDER BY at DESC
