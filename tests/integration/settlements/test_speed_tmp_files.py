import time, hashlib
from datetime import date, datetime, UTC
from tests.world import World
from integrations.settlement_files.mapping import parse
from integrations.settlement_files.reading import read
from products.settlements import comparison
from products.settlements.comparison import NewFile
M={"remittance_id":{"column":"id"},"amount":{"column":"amount"},"currency":{"column":"ccy"},"at":{"column":"at","format":"%d/%m/%Y %H:%M:%S","zone":"Africa/Kigali"},"thousands":","}
def test_speed(databases, clock):
    w=World(databases,clock); p=w.partner("acme"); q=w.partner("bolt")
    with databases.owner.begin() as tx:
        for partner,n in ((p,300_000),(q,300_000)):
            tx.exec_driver_sql("""WITH made AS (SELECT gen_random_uuid() AS id, n FROM generate_series(1,%(n)s) n), c AS (INSERT INTO products.remittance_claim SELECT %(p)s, 'R-'||n, id FROM made RETURNING 1)
             INSERT INTO products.remittance (id, partner_id, remittance_id, status, programme_id, collected_amount, collected_currency, contributed_at, recorded_at)
             SELECT id, %(p)s, 'R-'||n, 'posted', %(g)s, 20000, 'RWF', timestamptz '2026-03-02 08:00Z' + n * interval '4 second', now() FROM made""", {"p":partner.id,"g":w.programmes["ejoheza"],"n":n})
    with databases.superuser.begin() as tx: tx.exec_driver_sql("ANALYZE products.remittance"); tx.exec_driver_sql("ANALYZE products.remittance_claim")
    rows=["id,amount,ccy,at,name,phone"]
    for n in range(1,100_001):
        if n%1000==0: continue
        rows.append(f'R-{n},"{20000 + (n%997==0):,}",RWF,05/03/2026 10:00:00,Someone,+250788')
    content="\r\n".join(rows).encode()
    for rnd in range(3):
        content+=b"\r\n"
        t=time.time(); cpu=time.process_time(); m=parse(M); lines=read(content,m); t1=time.time(); cpu=time.process_time()-cpu
        with databases.worker.begin() as tx:
            mid=comparison.keep_mapping(tx,clock,p.id,w.programmes["ejoheza"],M)
            f,_=comparison.compare(tx,clock,NewFile(p.id,w.programmes["ejoheza"],mid,hashlib.sha256(content).digest(),lines,date(2026,3,2),date(2026,3,8),False))
        t2=time.time()
        with databases.worker.begin() as tx: o=comparison.one_of(tx,f)
        print(len(content),"read",round(t1-t,2),"cpu",round(cpu,2),"compare",round(t2-t1,2),o.lines,o.differences, time.time()-t2)
