/** The fields of a request as the page knows them: where each has its place, and which belong to one picture alone. */

/** Those with a field of their own in the form's data. */
export const OWN = new Set([
  ...['prompt', 'negative_prompt', 'model', 'seed', 'steps', 'guidance', 'sampler', 'spacing', 'width', 'height'],
  ...['count', 'image', 'strength', 'loras'],
])

/** The groups of "More settings", and what is in each. */
export const GROUPS = {
  guides: [
    ...['guidance_rescale', 'guidance_interval', 'image_guidance', 'freeu', 'perturbed_attention'],
    ...['self_attention_guidance', 'dynamic_thresholding', 'apg'],
  ],
  noise: ['variation', 'seed_size', 'eta', 'step_seed_delta', 'noise', 'batch', 'strict'],
  words: ['dialect', 'clip_skip', 'embeddings'],
  network: ['vae', 'refiner', 'prediction', 'tiling', 'windows', 'allow_unmatched'],
  start: ['resize_mode', 'strength_rule'],
  told: [
    ...['original_size', 'crop', 'target_size', 'negative_original_size', 'negative_crop', 'negative_target_size'],
    ...['aesthetic_score', 'negative_aesthetic_score'],
  ],
} as const satisfies Record<string, readonly string[]>

export const MORE: readonly string[] = Object.values(GROUPS).flat()

/** Those that have a place somewhere in the form. */
export const PLACED: readonly string[] = ['hires', 'styles', 'controls', 'image_prompts', 'regions', ...MORE]

/** What a resolved request says where nothing was asked for; these need no place. */
export const PLAIN: Record<string, unknown> = {
  guidance_rescale: 0,
  guidance_interval: [0, 1],
  batch: 1,
  clip_skip: 0,
  noise: 'keyed',
  strict: false,
  dialect: 'a1111',
  strength_rule: 'share',
  resize_mode: 'crop',
}

/** Of a start picture alone, and refused without one. */
export const OF_START = GROUPS.start

/** What steers a picture wherever it is drawn, and how it is called in a sentence. */
export const STEERING = {
  steps: 'steps',
  guidance: 'guidance',
  sampler: 'sampler',
  spacing: 'spacing',
  loras: 'LoRAs',
  styles: 'styles',
  controls: 'controls',
  image_prompts: 'image prompts',
  vae: 'autoencoder',
  clip_skip: 'text layers',
  embeddings: 'embeddings',
  freeu: 'FreeU',
  perturbed_attention: 'perturbed attention',
  self_attention_guidance: 'self-attention guidance',
  dynamic_thresholding: 'dynamic thresholding',
  apg: 'projected guidance',
}

/** Of one mask, and so not for another picture. */
export const MASKED = [
  ...['mask', 'mask_blur', 'mask_invert', 'masked_only', 'masked_content', 'masking', 'padding', 'differential'],
  'soft_inpainting',
]

/** What a picture's request says and the next need not. */
export const PASSING = [...MASKED, 'outpaint']
