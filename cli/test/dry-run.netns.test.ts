import { afterAll, beforeAll, describe, it } from "vitest";
import { isOurs, Lab, SOON } from "./lab.ts";
import { SHOP } from "./shop.ts";

const DENY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: try-out
  namespace: shop
  annotations: { istio.io/dry-run: "true" }
spec:
  action: DENY
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/client] } }] }]`;

const METRIC = 'ambit_policy_dry_run_total{policy="shop/try-out",verdict="deny"}';

describe.runIf(isOurs("node-2"))("a policy that is only tried out", () => {
  const lab = new Lab({
    AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY: "true",
    AUTHZ_POLICY_INFO_LOGGING: "true",
  });
  beforeAll(() => lab.up(SHOP));
  afterAll(() => lab.down());

  const logOf = (node: string) => lab.must("local", "logs", "ztunnel", "--node", node);
  const counted = async () => {
    const { netns } = (await lab.status()).nodes.find(({ name }) => name === "node-2")!;
    const curl = ["netns", "exec", netns, "curl", "-s", "http://127.0.0.1:15020/metrics"];
    const { stdout } = await lab.run("ip", curl);
    const line = stdout.split("\n").find((text) => text.startsWith(METRIC));
    return Number(line?.slice(line.lastIndexOf(" ")) ?? 0);
  };

  it("forbids nothing; log and metric say what it would have done, until it is enforced", async ({
    expect,
  }) => {
    await lab.whileApplied(DENY, async () => {
      const wouldDeny = async () => {
        expect(await lab.reach("client.shop", "http://far/")).toBe("reached");
        return counted();
      };
      await expect.poll(wouldDeny, { timeout: 20_000, interval: 100 }).toBeGreaterThan(0);
      const text = await logOf("node-2");
      expect(text).toMatch(/\tpolicy\tdry-run: deny policy match\tpolicy="shop\/try-out"/);
    });
    const enforced = DENY.replace('istio.io/dry-run: "true"', 'istio.io/dry-run: "false"');
    await lab.whileApplied(enforced, async () => {
      const reach = () => lab.reach("client.shop", "http://far/");
      await expect.poll(reach, SOON).toBe("refused");
    });
  });
});
