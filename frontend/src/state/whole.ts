/** The parts of a request with what they leave out, so that a form can show and change it. */

const ACTING = { weight: 1, start: 0, end: 1 }
const LEFT_OUT: Record<string, () => object> = {
  controls: () => ({ ...ACTING, preprocessor: 'none', mode: 'balanced', resize: 'crop', options: {} }),
  image_prompts: () => ({ ...ACTING, images: [] }),
  regions: () => ({ prompt: '', weight: 1 }),
}

/** A request's fields with whole parts; what is no part is left to the server's words. */
export function whole(fields: Record<string, unknown>): Record<string, unknown> {
  const filled = Object.entries(fields).map(([name, value]) => {
    const rest = LEFT_OUT[name]
    if (!rest || !Array.isArray(value)) return [name, value]
    return [name, value.map((each) => (typeof each === 'object' && each !== null ? { ...rest(), ...each } : each))]
  })
  return Object.fromEntries(filled) as Record<string, unknown>
}

/** A new part of a list of a request. */
export function fresh(name: 'controls' | 'image_prompts' | 'regions', said: object): object {
  return { ...LEFT_OUT[name]?.(), ...said }
}
