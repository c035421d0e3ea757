// What one pod has cost the ztunnel it shares with others, as its config dump tells it.

/** Of one pod since it is served. `sent` is what its application sent, `received` what it got. */
export interface PodUsage {
  readonly inbound: number;
  readonly outbound: number;
  readonly opened: number;
  /** Connections that were refused because the pod had as many as it may. */
  readonly refused: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly cpuSeconds: number;
}
