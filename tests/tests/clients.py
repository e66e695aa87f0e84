"""A session and cart framework's worth of redis-py against the node at HOST PORT."""

import sys
import threading

import redis
import redis.lock

client = redis.Redis(sys.argv[1], int(sys.argv[2]), decode_responses=True)
assert client.ping()

# Strings with every way to expire.
assert client.set("a", "1", ex=100) and 0 < client.ttl("a") <= 100
assert client.set("a", "2", nx=True) is None and client.set("a", "2", xx=True, keepttl=True)
assert client.ttl("a") > 0 and client.get("a") == "2"
assert client.getex("a", persist=True) == "2" and client.ttl("a") == -1
assert client.incrby("n", 5) == 5 and client.decr("n") == 4

# Hashes, sets, sorted sets, lists.
assert client.hset("cart", mapping={"mug": 1, "lamp": 2}) == 2
assert client.hincrby("cart", "mug", 4) == 5
assert client.hgetall("cart") == {"mug": "5", "lamp": "2"}
assert client.sadd("s", "x", "y") == 2 and client.smembers("s") == {"x", "y"}
assert client.zadd("z", {"one": 1, "two": 2.5}) == 2
assert client.zrange("z", 0, -1, withscores=True) == [("one", 1.0), ("two", 2.5)]
assert client.rpush("l", *range(5)) == 5 and client.lrange("l", 1, 2) == ["1", "2"]

# A transaction that another client disturbs is tried again.
disturbed = []


def change(pipe):
    value = int(pipe.get("n"))
    if not disturbed:
        disturbed.append(True)
        client.incr("n")
    pipe.multi()
    pipe.set("n", value + 10)


client.transaction(change, "n")
assert client.get("n") == "15", client.get("n")

# Pipelines, scripts, locks (SET NX PX and a script), scans.
with client.pipeline(transaction=False) as pipe:
    for number in range(500):
        pipe.set(f"key:{number}", number)
    assert pipe.execute() == [True] * 500
assert len(set(client.scan_iter("key:*", count=50))) == 500
add = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
assert add(keys=["n"], args=[5]) == 20
with client.lock("lock", timeout=5):
    assert not redis.lock.Lock(client, "lock", timeout=5).acquire(blocking=False)
try:
    client.lpush("cart", 1)
except redis.ResponseError as error:
    assert str(error).startswith("WRONGTYPE"), error
else:
    raise AssertionError("a list command on a hash succeeded")

# Publish and subscribe.
subscriber = client.pubsub(ignore_subscribe_messages=True)
subscriber.psubscribe("news.*")
while subscriber.get_message(timeout=0.2):
    pass
received = []
listener = threading.Thread(target=lambda: received.append(next(subscriber.listen())))
listener.start()
while client.publish("news.today", "hello") != 1:
    pass
listener.join(5)
assert received and received[0]["data"] == "hello" and received[0]["channel"] == "news.today", received

info = client.info()
assert info["redis_version"] == "7.2.4" and info["role"] == "master", info
assert any(row["addr"] for row in client.client_list())
print("ok")
