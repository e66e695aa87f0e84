return {1, revision, call('PTTL', key), 0, 0, call('HGET', key, '@expiry')}
