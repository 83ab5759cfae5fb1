// A certified OpenID provider on loopback. Its accounts are whatever name is typed, its pages are
// the ones it has for development. Arguments: the directory it is installed in, and the lifetime of
// access tokens in seconds. Prints its issuer once it serves.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const [directory, lifetime] = process.argv.slice(2);
const { default: Provider } = await import(createRequire(`${directory}/`).resolve('oidc-provider'));

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'createos-test',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: [
        'authorization_code',
        'refresh_token',
        'urn:ietf:params:oauth:grant-type:device_code',
      ],
      redirect_uris: ['http://localhost:65341/callback'],
      response_types: ['code'],
    }],
    features: { deviceFlow: { enabled: true } },
    // Each refresh token counts once; one that is used again ends the whole sign-in.
    rotateRefreshToken: true,
    ttl: { AccessToken: Number(lifetime) },
    cookies: { keys: ['only for tests'] },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
